//! The parser's complaints in our words: what is wrong, and what usually causes it.

/// What the parser's words mean, and what to do, if something can be advised.
pub fn explain(info: &str, line: &str) -> (String, Option<String>) {
    let template_value = line.contains(": {{") || line.contains("- {{");
    if template_value {
        return (
            "this is not YAML: a value that begins with `{{` is taken for a mapping".into(),
            Some("put the template in quotes: `key: \"{{ … }}\"`".into()),
        );
    }
    let table: &[(&str, &str, &str)] = &[
        ("tab", "a tab cannot be used for indentation", "indent with spaces"),
        (
            "quoted scalar, found unexpected end of stream",
            "a quote is opened here and never closed",
            "close it, or double a quote that is part of the text",
        ),
        (
            "quoted scalar, found unexpected document indicator",
            "a quote is still open where a new document begins",
            "close it",
        ),
        (
            "invalid indentation in quoted scalar",
            "this quoted text is not closed: the next line is indented too little to be part of it",
            "close the quote",
        ),
        (
            "unknown escape character",
            "a double-quoted text has an escape that YAML does not know",
            "write `\\\\` for a backslash, or use single quotes",
        ),
        (
            "mapping values are not allowed",
            "`:` begins a value where none can be",
            "a text that holds `: ` needs quotes; or the line above has no `:` behind its key",
        ),
        ("illegal placement of ':'", "`:` begins a value where none can be", "a text that holds `: ` needs quotes"),
        (
            "did not find expected ',' or '}'",
            "a `{` is not closed, or a `,` is missing between two entries",
            "close it with `}`",
        ),
        ("expected ',' or ']'", "a `[` is not closed, or a `,` is missing between two items", "close it with `]`"),
        (
            "misplaced bracket",
            "a bracket is closed that was not opened",
            "a text that begins with a bracket needs quotes",
        ),
        (
            "block mapping, did not find expected key",
            "this line is not part of the mapping above: it has no `key:`, or its indentation does not fit",
            "give it the indentation of its neighbours",
        ),
        (
            "block collection, did not find expected '-'",
            "this line is not part of the list above: it does not begin with `-`",
            "give it the indentation of its neighbours",
        ),
        (
            "simple key expect",
            "a line here has no `:` after its key, or a text goes on where it cannot",
            "write `key: value`; use `|` for a text of several lines",
        ),
        ("simple key expected", "a line here has no `:` after its key", "write `key: value`"),
        ("mapping keys are not allowed", "a key cannot begin here", "check the indentation"),
        (
            "block sequence entries are not allowed",
            "a list item cannot begin here",
            "put `-` on a line of its own, indented below its key",
        ),
        (
            "unknown anchor",
            "this alias has no anchor",
            "write `&name` before the value that `*name` stands for, above it",
        ),
        ("found duplicated anchor", "this anchor is defined twice", "give it another name"),
        (
            "invalid indentation in flow construct",
            "a line inside brackets is indented too little",
            "indent it more than its key",
        ),
        (
            "invalid indentation",
            "the indentation does not fit the lines above",
            "give it the indentation of its neighbours",
        ),
        (
            "wrongly indented line in block scalar",
            "a line of this text is indented less than its first line",
            "indent all lines of the text alike",
        ),
        (
            "unexpected character",
            "this character cannot begin a value",
            "a text that begins with `@`, `` ` `` or `%` needs quotes",
        ),
        (
            "invalid trailing content",
            "something follows the closing quote",
            "put the whole value in one pair of quotes",
        ),
        ("recursion limit", "brackets are nested too deeply", ""),
        (
            "unprintable character",
            "the file holds a character that YAML does not allow",
            "remove it, or write it as an escape in double quotes",
        ),
        ("comment", "a comment stands where a text goes on", "move it, or put the text in quotes"),
        ("anchor", "this is not a name for an anchor or alias", "a text that begins with `&` or `*` needs quotes"),
        ("directive", "this is not a YAML directive", "a text that begins with `%` needs quotes"),
        ("tag", "this is not a YAML tag", "a text that begins with `!` needs quotes"),
        ("document", "a new document begins where none can", "put `---` on a line of its own"),
        ("unexpected eof", "the file ends too early", "is a bracket or a quote still open?"),
        (
            "did not find expected node content",
            "a value is missing here",
            "is a `,` or bracket too many, or does a text begin with a special character? then put it in quotes",
        ),
    ];
    let found = table.iter().find(|(key, _, _)| info.contains(key));
    match found {
        Some((_, message, hint)) => {
            ((*message).to_owned(), if hint.is_empty() { None } else { Some((*hint).to_owned()) })
        }
        None => (format!("this is not YAML: {info}"), None),
    }
}
