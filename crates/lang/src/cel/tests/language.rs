//! The language itself: values, operators, fields, macros.

use super::table;

#[test]
fn literals_and_names() {
    table(
        r#"
        -0x1F  -> -31
        9223372036854775807  -> 9223372036854775807
        -9223372036854775808  -> -9223372036854775808
        9223372036854775808  -> ! too large
        18446744073709551615u  -> 18446744073709551615u
        0xFFu  -> 255u
        .5e1  -> 5.0
        -1e-3  -> -0.001
        'it''s'  -> ! expected an operator
        'it\'s \u00e9 \U0001F431 \x41 \101'  -> "it's é 🐱 A A"
        "tab\there"  -> "tab\there"
        r'\d\'  -> "\\d\\"
        R"a\"  -> "a\\"
        '''a'b''c'''  -> "a'b''c"
        b'\xff\377é'  -> b"\xff\xff\xc3\xa9"
        br'\x'  -> b"\\x"
        '\xff'  -> "ÿ"
        '\s'  -> ! no such escape
        '\ud83d'  -> ! no character
        'open  -> ! not closed
        [1, 'a', null, true,]  -> [1, "a", null, true]
        {'a': 1, 2u: [], true: {}}  -> {true: {}, 2u: [], "a": 1}
        {'a': 1, 'a': 2}  -> ! twice
        {1: 'a', 1u: 'b'}  -> ! twice
        {1.0: 'a'}  -> ! cannot be a key
        1 // the rest is a comment  -> 1
        (1)  -> 1
        while  -> ! reserved
        nobody  -> ! undeclared reference to `nobody`
        bodi.x  -> ! did you mean `body`?
        a{b: 1}  -> ! messages cannot be made
        1 +  -> ! expected a value, found the end
        1 = 1  -> ! `==`
        $(params.x) == 'a'  -> ! stands in quotes
        "#,
    );
}

#[test]
fn arithmetic() {
    table(
        r#"
        1 + 2 * 3 - 4  -> 3
        7 / 2  -> 3
        -7 / 2  -> -3
        -7 % 3  -> -1
        7u / 2u  -> 3u
        7.0 / 2.0  -> 3.5
        1.0 / 0.0  -> inf
        1 / 0  -> ! division by zero
        1 % 0  -> ! modulus by zero
        9223372036854775807 + 1  -> ! overflow
        -9223372036854775808 / -1  -> ! overflow
        -(-9223372036854775808)  -> ! overflow
        1u - 2u  -> ! overflow
        9223372036854775807 * 2  -> ! overflow
        1 + 1u  -> ! no matching overload for `_+_` applied to `(int, uint)`
        1 + 1.0  -> ! no matching overload
        body.number + 1  -> ! no such overload
        body.number + 1.0  -> 8.0
        int(body.number) + 2  -> 9
        'a' + 'b'  -> "ab"
        b'a' + b'b'  -> b"ab"
        [1] + [2, 3]  -> [1, 2, 3]
        - 1  -> -1
        --1  -> 1
        !!true  -> true
        -'a'  -> ! no matching overload
        "#,
    );
}

#[test]
fn equality_and_order() {
    table(
        r#"
        1 == 1  -> true
        1 == 1.0  -> ! no matching overload
        dyn(1) == 1.0  -> true
        dyn(1u) == 1  -> true
        dyn('1') == 1  -> false
        dyn(1) != null  -> true
        dyn(9007199254740993) == 9007199254740992.0  -> false
        dyn(9223372036854775807) < 9223372036854775808.0  -> true
        'a' == 1  -> ! no matching overload for `_==_` applied to `(string, int)`
        body.number == 7  -> true
        body.number == 7.0  -> true
        body.number == '7'  -> false
        body.number > 6  -> true
        body.number < 'a'  -> ! no such overload
        1 < 1.5  -> ! no matching overload
        dyn(1) < 1.5  -> true
        0.0/0.0 == 0.0/0.0  -> false
        0.0/0.0 != 0.0/0.0  -> true
        0.0/0.0 < 1.0  -> ! NaN
        'b' > 'a'  -> true
        'Z' < 'a'  -> true
        'abc' < 'abd'  -> true
        b'a' <= b'a'  -> true
        false < true  -> true
        [1, 2] == [1, 2]  -> true
        [1, 2] == [2, 1]  -> false
        [dyn(1)] == [1.0]  -> true
        {'a': 1, 'b': 2} == {'b': 2, 'a': 1}  -> true
        {'a': 1} == {'a': 2}  -> false
        null == null  -> true
        [] == []  -> true
        [1] < [2]  -> ! no matching overload
        "#,
    );
}

#[test]
fn conditions_absorb_faults() {
    table(
        r#"
        true && false || true  -> true
        false && 1/0 == 1  -> false
        1/0 == 1 && false  -> false
        1/0 == 1 || true  -> true
        1/0 == 1 || false  -> ! division by zero
        1/0 == 1 && true  -> ! division by zero
        body.number && true  -> ! a condition is bool
        body.number || true  -> true
        1 && true  -> ! takes conditions
        true ? 1 : 2  -> 1
        false ? 1/0 : 2  -> 2
        true ? 1 : false ? 2 : 3  -> 1
        false ? 1 : false ? 2 : 3  -> 3
        true ? 1 : 'a'  -> ! both sides
        body.on ? 'yes' : 'no'  -> "yes"
        body.number ? 1 : 2  -> ! a condition is bool
        !body.on  -> false
        !body.number  -> ! no such overload
        "#,
    );
}

#[test]
fn fields_keys_and_items() {
    table(
        r#"
        body.action  -> "opened"
        body['action']  -> "opened"
        body.nothing  -> ! no such key: nothing
        body.action.x  -> ! only maps have fields
        body.labels[1].name  -> "test-b"
        body.labels[2]  -> ! index out of bounds: 2
        body.labels[-1]  -> ! index out of bounds: -1
        body.labels['a']  -> ! no such overload
        body.labels[dyn(1.0)].name  -> "test-b"
        body.labels[dyn(0.5)]  -> ! no such overload
        [1, 2][1]  -> 2
        {1: 'a'}[1]  -> "a"
        {1: 'a'}[dyn(1.0)]  -> "a"
        {1: 'a'}[2]  -> ! no such key: 2
        {'in-word': 1}['in-word']  -> 1
        has(body.action)  -> true
        has(body.nothing)  -> false
        has(body.none)  -> true
        has(body.action.x)  -> ! only maps have fields
        has(body.nothing.x)  -> ! no such key
        has(body)  -> ! takes one field
        'action' in body  -> true
        'x' in body  -> false
        2 in [1, 2]  -> true
        body.number in [7, 8]  -> true
        'a' in [1]  -> ! no matching overload
        1 in {1.0 == 1.0: 2}  -> ! no matching overload
        (1).x  -> ! int has no fields
        size(body.labels)  -> 2
        body.labels.size()  -> 2
        size({'a': 1})  -> 1
        size('naïve')  -> 5
        size(b'\xff\xff')  -> 2
        size(1)  -> ! no matching overload
        "#,
    );
}

#[test]
fn macros() {
    table(
        r#"
        [1, 2, 3].all(x, x > 0)  -> true
        [1, 2, 3].all(x, x > 1)  -> false
        [].all(x, false)  -> true
        [1, 2].exists(x, x == 2)  -> true
        [].exists(x, true)  -> false
        [1, 2, 2].exists_one(x, x == 2)  -> false
        [1, 2].existsOne(x, x == 2)  -> true
        [1, 2, 3].filter(x, x % 2 == 1)  -> [1, 3]
        [1, 2, 3].map(x, x * x)  -> [1, 4, 9]
        [1, 2, 3].map(x, x > 1, x * 10)  -> [20, 30]
        {'b': 1, 'a': 2}.map(k, k)  -> ["a", "b"]
        {'b': 1, 'a': 2}.filter(k, k == 'b')  -> ["b"]
        {'a': 1}.all(k, k == 'a')  -> true
        [0, 1].exists(x, 1 / x == 1)  -> true
        [0, 2].exists(x, 1 / x == 1)  -> ! division by zero
        [0, 2].all(x, 1 / x == 1)  -> false
        [0, 1].all(x, 1 / x == 1)  -> ! division by zero
        [0, 1].exists_one(x, 1 / x == 1)  -> ! division by zero
        [[1, 2], [3]].map(x, x.map(y, y + size(x)))  -> [[3, 4], [4]]
        [1].map(body, body)  -> [1]
        [1].map(x, .body.action)  -> ["opened"]
        [1].map(x, [2].map(x, x))  -> [[2]]
        [1].all(x, x)  -> ! a condition (bool) belongs here
        'a'.all(x, true)  -> ! walks over a list
        body.action.all(x, true)  -> ! no items to walk over
        [1].all(1, true)  -> ! a new name
        [1].all(x.y, true)  -> ! a new name
        [1].map(x, x) + [x]  -> ! undeclared
        body.labels.exists(x, x.name == 'test-b')  -> true
        body.labels.exists_one(x, x.name.startsWith('test-'))  -> false
        body.labels.map(x, x.name.substring(x.name.lastIndexOf('-') + 1))  -> ["a", "b"]
        ['b', 'a'].sortBy(x, x)  -> ["a", "b"]
        body.labels.sortBy(x, -size(x.name)).map(x, x.name)  -> ["test-a", "test-b"]
        "#,
    );
}
