# Writes what a step says as records to stdout: fd 3 is its stdout, fd 4 its stderr.
# Arguments: the number of the step, the bytes that the log may have, a file for a copy of its stdout or nothing.
use strict;
my ($step, $limit, $keep) = @ARGV;
my $clock = eval { require Time::HiRes; 1 };
my $over = 0;
$SIG{TERM} = sub { $over = 1 };
open(my $log, '>>&=', 1);
my $size = -s $log;
my ($copy, $kept);
if ($keep ne '') { open($copy, '>', $keep) or undef $copy; $kept = 0; }
my %open;
for (['o', 3], ['e', 4]) {
    open(my $in, '<&=', $_->[1]);
    $open{$_->[0]} = { in => $in, fd => $_->[1], line => '', shown => 0 };
}
my ($out, $dropped) = ('', 0);

sub record {
    my ($tag, $text, $more) = @_;
    my $at = $clock ? int(Time::HiRes::time() * 1e6) : 0;
    my $record = "$at $tag$step" . ($more ? '+' : ' ') . "$text\n";
    return if $size + length($out) + length($record) > $limit;
    $out .= $record;
}

# All or nothing: what does not fit on the disk is left out, and said as soon as something does.
sub flush {
    return if $out eq '';
    my $done = 0;
    while ($done < length $out) {
        my $n = syswrite($log, $out, length($out) - $done, $done);
        last unless $n;
        $done += $n;
    }
    if ($done == length $out) { $size += $done }
    else { truncate($log, $size); $dropped += length $out }
    $out = '';
    return unless $dropped && $done;
    my ($lost, $before) = ($dropped, $size);
    $dropped = 0;
    record('s', "$lost bytes of log are missing here: they could not be written", 0);
    my $note = $out; $out = '';
    if ((syswrite($log, $note) || 0) == length $note) { $size += length $note }
    else { truncate($log, $before); $dropped = $lost }
}

# Half a line, without a character that may still be coming.
sub show {
    my ($tag, $s) = @_;
    my $whole = length $s->{line};
    $whole -= length $1 if $s->{line} =~ /([\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\z/;
    return if $whole == 0;
    record($tag, substr($s->{line}, 0, $whole, ''), 1);
    $s->{shown} = 1;
}

sub feed {
    my ($tag, $s, $bytes) = @_;
    if ($copy && $tag eq 'o' && $kept <= 1048576) {
        syswrite($copy, substr($bytes, 0, 1048577 - $kept));
        $kept += length $bytes;
    }
    my @lines = split /\n/, $s->{line} . $bytes, -1;
    $s->{line} = pop @lines;
    for (@lines) { record($tag, $_, 0); $s->{shown} = 0 }
    show($tag, $s) if length $s->{line} >= 16384;
}

while (%open) {
    my $bits = '';
    vec($bits, $_->{fd}, 1) = 1 for values %open;
    my $half = grep { $_->{line} ne '' } values %open;
    my $ready = select($bits, undef, undef, $over ? 0 : $half ? 0.1 : 1);
    next if $ready < 0;
    last if $ready == 0 && $over;
    for my $tag (sort { $b cmp $a } keys %open) {
        my $s = $open{$tag};
        if ($ready == 0) { show($tag, $s); next }
        next unless vec($bits, $s->{fd}, 1);
        my $n = sysread($s->{in}, my $bytes, 65536);
        if ($n) { feed($tag, $s, $bytes) }
        elsif (defined $n) {
            record($tag, $s->{line}, 0) if $s->{line} ne '' || $s->{shown};
            delete $open{$tag};
        }
    }
    flush();
}
record($_, $open{$_}{line}, 0) for grep { $open{$_}{line} ne '' || $open{$_}{shown} } keys %open;
flush();
