//! Users, tokens and connections.

use pitcrew_store::*;

use crate::sample::{at, audit, workflow};

fn user(name: &str) -> UserRow {
    UserRow {
        name: name.to_owned(),
        role: Role::User,
        password: Some("$argon2id$…".to_owned()),
        full_name: "Grace \0".to_owned(),
        email: "g@example.com".to_owned(),
        active: true,
        subject: Some(format!("https://id.example.com {name}")),
        epoch: 0,
        created: at(1),
        last_login: None,
    }
}

fn token(id: &str, user: &str) -> TokenRow {
    TokenRow {
        id: id.to_owned(),
        user: user.to_owned(),
        name: "ci".to_owned(),
        hash: format!("hash of {id}"),
        role: Role::Op,
        workflows: vec![workflow("etl"), workflow("train")],
        created: at(1),
        expires: Some(at(100)),
        last_used: None,
    }
}

pub async fn users_sign_in_and_go_with_their_tokens(store: &Store) {
    let grace = UserRow { full_name: "Grace \u{fffd}".to_owned(), ..user("grace") };
    store.put_user(user("grace"), audit("user.create", 1)).await.unwrap();
    store.put_user(UserRow { subject: None, ..user("bot") }, audit("user.create", 1)).await.unwrap();
    store.put_user(UserRow { subject: None, ..user("bot2") }, audit("user.create", 1)).await.unwrap();
    assert_eq!(store.user("grace").await.unwrap().as_ref(), Some(&grace));
    assert_eq!(store.user("Grace").await.unwrap(), None, "names are as they are written");
    let subject = grace.subject.clone().unwrap();
    assert_eq!(store.user_by_subject(&subject).await.unwrap().as_ref(), Some(&grace));
    let twin = UserRow { subject: Some(subject), ..user("twin") };
    let error = store.put_user(twin, audit("user.create", 2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error}");

    store.note_login("grace", at(5)).await.unwrap();
    store.note_login("nobody", at(5)).await.unwrap();
    let changed = UserRow { role: Role::Admin, epoch: 1, active: false, last_login: Some(at(5)), ..grace.clone() };
    assert_eq!(store.user("grace").await.unwrap(), Some(UserRow { last_login: Some(at(5)), ..grace }));
    store.put_user(changed.clone(), audit("user.change", 3)).await.unwrap();
    let page = store.users(Paging { limit: 1, offset: 2 }).await.unwrap();
    assert_eq!((page.rows, page.total), (vec![changed], 3));

    let error = store.put_token(token("t", "nobody"), audit("token.create", 4)).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { kind: "user", .. }), "{error}");
    for (id, of) in [("t2", "grace"), ("t1", "grace"), ("t3", "bot")] {
        store.put_token(token(id, of), audit("token.create", 4)).await.unwrap();
    }
    let same_hash = TokenRow { id: "t4".to_owned(), ..token("t1", "bot") };
    let error = store.put_token(same_hash, audit("token.create", 4)).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    let ids = async |user| {
        let tokens = store.tokens(user).await.unwrap();
        tokens.into_iter().map(|token| token.id).collect::<Vec<_>>().join(" ")
    };
    assert_eq!((ids(None).await.as_str(), ids(Some("grace")).await.as_str()), ("t3 t1 t2", "t1 t2"));
    assert_eq!(store.token_by_hash("hash of t1").await.unwrap(), Some(token("t1", "grace")));
    for (noted, stored) in [(10, 10), (3000, 10), (3611, 3611)] {
        store.note_token_use("t1", at(noted)).await.unwrap();
        assert_eq!(store.token("t1").await.unwrap().unwrap().last_used, Some(at(stored)), "to the hour");
    }
    assert!(store.delete_token("t3", audit("token.delete", 5)).await.unwrap());
    assert!(!store.delete_token("t3", audit("token.delete", 5)).await.unwrap());
    assert!(store.delete_user("grace", audit("user.delete", 6)).await.unwrap());
    assert!(!store.delete_user("grace", audit("user.delete", 6)).await.unwrap());
    assert_eq!(ids(None).await, "", "tokens go with their user");

    let events = async |event: &str| {
        let filter = AuditFilter { event: Some(event.to_owned()), ..AuditFilter::default() };
        store.audit(&filter, Paging::ALL).await.unwrap().total
    };
    assert_eq!((events("user.create").await, events("user.change").await, events("user.delete").await), (3, 1, 1));
    assert_eq!((events("token.create").await, events("token.delete").await), (3, 1));
    assert_eq!("ADMIN".parse::<Role>().unwrap(), Role::Admin);
    assert!(Role::Viewer < Role::User && Role::Op < Role::Admin);
    assert!("root".parse::<Role>().unwrap_err().to_string().contains("`root`"));
}

pub async fn connections_are_kept_as_given(store: &Store) {
    let connection = |id: &str| Connection {
        id: id.to_owned(),
        conn_type: "postgres".to_owned(),
        description: "warehouse".to_owned(),
        host: "db.example.com".to_owned(),
        schema: "public".to_owned(),
        login: "loader".to_owned(),
        port: Some(u16::MAX),
        password: Some("sealed:1".to_owned()),
        extra: Some("sealed:2".to_owned()),
    };
    let bare = Connection { port: None, password: None, extra: None, ..connection("Bare_1") };
    for new in [connection("b"), connection("axb"), bare.clone()] {
        store.put_connection(new, audit("connection.create", 1)).await.unwrap();
    }
    let changed = Connection { host: String::new(), port: Some(0), ..connection("b") };
    store.put_connection(changed.clone(), audit("connection.change", 2)).await.unwrap();
    assert_eq!(store.connection("b").await.unwrap(), Some(changed));
    assert_eq!(store.connection("Bare_1").await.unwrap(), Some(bare));
    let ids = async |contains| {
        let page = store.connections(contains, Paging::first(2)).await.unwrap();
        (page.rows.into_iter().map(|row| row.id).collect::<Vec<_>>().join(" "), page.total)
    };
    assert_eq!(ids(None).await, ("Bare_1 axb".to_owned(), 3));
    assert_eq!(ids(Some("B")).await.1, 3);
    assert_eq!(ids(Some("e_1")).await, ("Bare_1".to_owned(), 1));
    assert!(store.delete_connection("b", audit("connection.delete", 3)).await.unwrap());
    assert!(!store.delete_connection("b", audit("connection.delete", 3)).await.unwrap());
    let error = store.put_connection(connection("a\nb"), audit("connection.create", 4)).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)), "{error}");
}
