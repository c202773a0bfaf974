//! Functions: of the language, of its extensions, of triggers.

use super::table;

#[test]
fn conversions() {
    table(
        r#"
        int('-12')  -> -12
        int('1.5')  -> ! type conversion error
        int(1.9)  -> 1
        int(-7.9)  -> -7
        int(9223372036854775807.0)  -> ! out of the range
        int(18446744073709551615u)  -> ! out of the range
        int(timestamp('2004-09-16T23:59:59Z'))  -> 1095379199
        uint(-1)  -> ! out of the range
        uint(3.9)  -> 3u
        uint('300')  -> 300u
        double('-84.32e7')  -> -843200000.0
        double(3)  -> 3.0
        string(1.0)  -> "1"
        string(123.456)  -> "123.456"
        string(-0.0045)  -> "-0.0045"
        string(1000000.0)  -> "1e+06"
        string(body.number)  -> "7"
        string(0.00001)  -> "1e-05"
        string(true)  -> "true"
        string(b'\303\277')  -> "ÿ"
        string(b'\xff')  -> ! invalid UTF-8
        string(duration('1h1.5s'))  -> "3601.5s"
        string(timestamp('2009-02-13T23:31:30.5Z'))  -> "2009-02-13T23:31:30.5Z"
        string(null)  -> ! no such overload
        bytes('ÿ')  -> b"\xc3\xbf"
        bool('True')  -> true
        bool('0')  -> false
        bool('yes')  -> ! type conversion error
        type(1)  -> int
        type(body.number) == double  -> true
        type('a') == string  -> true
        type(type)  -> type
        type([1]) == list  -> true
        type(timestamp(0)) == google.protobuf.Timestamp  -> true
        type(null) == null_type  -> true
        "#,
    );
}

#[test]
fn texts() {
    table(
        r#"
        'hello'.contains('ell')  -> true
        'hello'.startsWith('')  -> true
        'hello'.endsWith('lo')  -> true
        'banana'.matches('ba(na)*$')  -> true
        matches('x9', '^[a-z]\\d$')  -> true
        'a'.matches('(')  -> ! no regular expression
        'été'.charAt(1)  -> "t"
        'abc'.charAt(3)  -> ""
        'abc'.charAt(4)  -> ! index out of range: 4
        'hello mellow'.indexOf('ello')  -> 1
        'hello mellow'.indexOf('ello', 2)  -> 7
        'hello mellow'.indexOf('jello')  -> -1
        'hello mellow'.indexOf('', 2)  -> 2
        'hello mellow'.indexOf('ello', 20)  -> -1
        'hello mellow'.indexOf('ello', -1)  -> ! out of range
        'hello mellow'.lastIndexOf('ello')  -> 7
        'hello mellow'.lastIndexOf('ello', 6)  -> 1
        'hello mellow'.lastIndexOf('')  -> 12
        ['a', 'b'].join('-')  -> "a-b"
        ['a', 'b'].join()  -> "ab"
        [].join('/')  -> ""
        [body.action, body.number].join('')  -> ! takes strings
        'TacoCÆt'.lowerAscii()  -> "tacocÆt"
        'tacoæ'.upperAscii()  -> "TACOæ"
        '  \ttrim\n '.trim()  -> "trim"
        'hello'.replace('l', 'L')  -> "heLLo"
        'hello'.replace('l', 'L', 1)  -> "heLlo"
        'hello'.replace('l', 'L', 0)  -> "hello"
        'abc'.replace('', '_')  -> "_a_b_c_"
        'a b c'.split(' ')  -> ["a", "b", "c"]
        'a b c'.split(' ', 2)  -> ["a", "b c"]
        'a b c'.split(' ', 0)  -> []
        'a b c'.split(' ', -1)  -> ["a", "b", "c"]
        'abc'.split('')  -> ["a", "b", "c"]
        'tacocat'.substring(4)  -> "cat"
        'tacocat'.substring(0, 4)  -> "taco"
        'tacocat'.substring(2, 1)  -> ! invalid substring range
        'tacocat'.substring(-1)  -> ! out of range
        'ab'.substring(0, 3)  -> ! out of range
        'gums'.reverse()  -> "smug"
        strings.quote("a\"b\n")  -> "\"a\\\"b\\n\""
        '%s is %d, %.2f, %x, %%'.format(['a', 42, 3.14159, 26])  -> "a is 42, 3.14, 1a, %"
        '%s'.format([[1, 'a', {'k': null}]])  -> "[1, \"a\", {\"k\": null}]"
        '%e %b %o %X'.format([2.71828, 5, 8, 'hi'])  -> "2.718280e+00 101 10 6869"
        '%d'.format(['a'])  -> ! cannot show string
        '%s %s'.format(['a'])  -> ! more `%`
        "#,
    );
}

#[test]
fn times() {
    table(
        r#"
        timestamp('2009-02-13T23:31:30Z').getDate()  -> 13
        timestamp('2009-02-13T23:31:30Z').getDayOfMonth()  -> 12
        timestamp('2009-02-13T23:31:30Z').getDayOfWeek()  -> 5
        timestamp('2009-02-13T23:31:30Z').getDayOfYear()  -> 43
        timestamp('2009-02-13T23:31:30Z').getMonth()  -> 1
        timestamp('2009-02-13T23:31:30Z').getDate('Australia/Sydney')  -> 14
        timestamp('2009-02-13T23:31:30Z').getHours('02:00')  -> 1
        timestamp('2009-02-13T02:00:00Z').getDayOfMonth('-02:30')  -> 11
        timestamp('2009-02-13T23:31:30Z').getMinutes('Asia/Kathmandu')  -> 16
        timestamp('2009-02-13T23:31:20.123456789Z').getMilliseconds()  -> 123
        timestamp('2009-02-13T23:31:30Z').getHours('Mars/Base')  -> ! no time zone
        timestamp('2009-02-13T23:00:00Z') + duration('240s')  -> 2009-02-13T23:04:00Z
        timestamp('2009-02-13T23:31:00Z') - timestamp('2009-02-13T23:29:00Z')  -> 120000000000ns
        timestamp('2000-01-01T00:00:00Z') < timestamp('2001-01-01T00:00:00+01:00')  -> true
        timestamp('10000-01-01T00:00:00Z')  -> ! no timestamp
        timestamp('2009-02-13 23:31:30Z')  -> ! no timestamp
        timestamp('2009-02-30T23:31:30Z')  -> ! out of the range
        timestamp(253402300800)  -> ! out of the range
        timestamp('9999-12-31T23:59:59Z') + duration('1s')  -> ! out of the range
        duration('1h30m').getMinutes()  -> 90
        duration('-1.5s')  -> -1500000000ns
        duration('10000s').getHours()  -> 2
        duration('1d')  -> ! no duration
        duration('320000000000s')  -> ! out of the range
        duration('1m') == duration('60s')  -> true
        "#,
    );
}

#[test]
fn what_triggers_add() {
    table(
        r#"
        header.match('x-github-event', 'push')  -> true
        header.match('X-Nothing', 'push')  -> false
        header.canonical('X-GitHub-Event')  -> "push"
        header.canonical('X-Many')  -> "one"
        header.canonical('X-Nothing')  -> ""
        header['X-Many'][1]  -> "two"
        body.sha.truncate(7)  -> "ab12cd3"
        body.sha.truncate(70)  -> "ab12cd34ef"
        'é1'.truncate(1)  -> ""
        body.ref.split('/')[2]  -> "main"
        extensions.early.key  -> "value"
        requestURL.parseURL().path  -> "/x"
        body.text.parseJSON().a.b[0]  -> 1.0
        '[1]'.parseJSON()  -> ! reads objects
        '{'.parseJSON()  -> ! cannot read
        body.yaml.parseYAML().b  -> ["x"]
        body.url.parseURL().host  -> "example.com:8443"
        body.url.parseURL().path  -> "/a b/c"
        body.url.parseURL().rawQuery  -> "x=1&x=2&y=z"
        body.url.parseURL().query['x']  -> "1,2"
        body.url.parseURL().queryStrings['x'][1]  -> "2"
        body.url.parseURL().fragment  -> "top"
        body.url.parseURL().auth.username  -> "me"
        'http://a b/'.parseURL()  -> ! no address
        'x%zz'.parseURL()  -> ! no address
        body.labels.marshalJSON()  -> "[{\"name\":\"test-a\"},{\"name\":\"test-b\"}]"
        {'a': 1.0, 'b': 9007199254740993}.marshalJSON()  -> "{\"a\":1,\"b\":\"9007199254740993\"}"
        [1, 2].first()  -> 1
        [1, 2].last()  -> 2
        body.empty.first()  -> null
        'This is $an Invalid5String '.translate('[^a-z0-9]+', '')  -> "hisisannvalid5tring"
        'a1b2'.translate('([a-z])([0-9])', '$2$1')  -> "1a2b"
        body.b64.decodeb64()  -> "hello"
        base64.decode(body.b64) == b'hello'  -> true
        base64.encode(b'hello')  -> "aGVsbG8="
        base64.decode('aGVsbG8') == bytes('hello')  -> true
        base64.decode('***')  -> ! not base64
        's3cret'.compareSecret('token', 'hook')  -> true
        's3cre'.compareSecret('token', 'hook')  -> false
        's3cret'.compareSecret('token', 'hook', 'elsewhere')  -> true
        'x'.compareSecret('token', 'other')  -> ! no secret `other`
        sets.contains([1, 2, 3], [2, 3])  -> true
        sets.equivalent([1, 2, 2], [2, 1])  -> true
        sets.intersects([1], [2])  -> false
        [1, [2, [3]]].flatten()  -> [1, 2, [3]]
        [1, [2, [3]]].flatten(2)  -> [1, 2, 3]
        [3, 1, 2].sort()  -> [1, 2, 3]
        [dyn(3), 'a'].sort()  -> ! of one type
        [1, 2, 1].distinct()  -> [1, 2]
        [1, 2, 3].reverse()  -> [3, 2, 1]
        [1, 2, 3].slice(1, 3)  -> [2, 3]
        [1, 2, 3].slice(2, 4)  -> ! not within the list
        lists.range(3)  -> [0, 1, 2]
        math.greatest(1, 5, 3)  -> 5
        math.least([3, 2])  -> 2
        math.greatest('a', 'b')  -> ! takes numbers
        math.round(2.5)  -> 3.0
        math.bitAnd(6, 3)  -> 2
        math.bitShiftLeft(1, 64)  -> 0
        math.sign(-2.5)  -> -1.0
        body.sha.truncat(7)  -> ! did you mean `truncate`?
        body.sha.truncate('7')  -> ! no matching overload for `truncate`
        "#,
    );
}
