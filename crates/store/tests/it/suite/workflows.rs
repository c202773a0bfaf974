//! Workflows and broken files.

use pitcrew_store::{Paging, PutWorkflow, Store, StoreError, WorkflowFilter, WorkflowRow};

use crate::sample::{at, audit, row, workflow};

pub async fn a_workflow_keeps_its_pause_its_versions_and_its_tags(store: &Store) {
    let id = workflow("etl");
    assert_eq!(store.workflow(&id).await.unwrap(), None);
    assert_eq!(store.put_workflow(&row("etl"), "source 1", at(1)).await.unwrap(), PutWorkflow::Created);
    // Tags come back sorted; a time to the microsecond.
    let stored = store.workflow(&id).await.unwrap().unwrap();
    assert_eq!(stored, WorkflowRow { tags: vec!["ci".to_owned(), "gpu".to_owned()], ..row("etl") });
    assert_eq!(store.put_workflow(&row("etl"), "source 1", at(2)).await.unwrap(), PutWorkflow::Unchanged);

    assert!(store.set_paused(&id, true, audit("workflow.pause", 1)).await.unwrap());
    assert!(!store.set_paused(&id, true, audit("workflow.pause", 2)).await.unwrap());
    let changed = WorkflowRow { version: "v2".to_owned(), tags: vec!["new".to_owned()], schedule: None, ..row("etl") };
    assert_eq!(store.put_workflow(&changed, "source 2", at(3)).await.unwrap(), PutWorkflow::Updated);
    let stored = store.workflow(&id).await.unwrap().unwrap();
    assert_eq!(stored, WorkflowRow { is_paused: true, ..changed.clone() }, "a pause is the users'");
    assert_eq!(store.version_source(&id, "v1").await.unwrap().as_deref(), Some("source 1"));
    assert_eq!(store.version_source(&id, "v2").await.unwrap().as_deref(), Some("source 2"));
    assert_eq!(store.version_source(&id, "v3").await.unwrap(), None);
    let versions = store.versions(&id).await.unwrap();
    assert_eq!(
        versions.iter().map(|v| (v.hash.as_str(), v.created)).collect::<Vec<_>>(),
        [("v2", at(3)), ("v1", at(1))]
    );

    store.set_next_run(&id, None).await.unwrap();
    assert!(store.deactivate(&id).await.unwrap());
    assert!(!store.deactivate(&id).await.unwrap());
    let stored = store.workflow(&id).await.unwrap().unwrap();
    assert_eq!((stored.next_run, stored.active), (None, false));
    assert_eq!(store.put_workflow(&changed, "source 2", at(4)).await.unwrap(), PutWorkflow::Updated);
    assert!(store.workflow(&id).await.unwrap().unwrap().active, "its file is back");

    let nobody = workflow("nobody");
    let not_found = StoreError::NotFound { kind: "workflow", name: "nobody".to_owned() };
    assert_eq!(store.set_paused(&nobody, true, audit("workflow.pause", 3)).await.unwrap_err(), not_found);
    assert_eq!(store.set_next_run(&nobody, None).await.unwrap_err(), not_found);
    assert!(!store.deactivate(&nobody).await.unwrap());
}

pub async fn workflows_are_found_by_part_of_the_id_tag_and_state(store: &Store) {
    for (id, tags, active) in
        [("find_a", &["x", "y"][..], true), ("find-B", &["y"][..], true), ("findxa", &["gone"][..], false)]
    {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let row = WorkflowRow { tags, active, is_paused: id == "find-B", ..row(id) };
        store.put_workflow(&row, "", at(1)).await.unwrap();
    }
    let find = async |filter: WorkflowFilter| {
        let page = store.workflows(&filter, Paging::first(10)).await.unwrap();
        assert_eq!(page.total, page.rows.len() as u64);
        page.rows.into_iter().map(|row| row.id.to_string()).collect::<Vec<_>>()
    };
    let part = |text: &str| WorkflowFilter { contains: Some(text.to_owned()), ..WorkflowFilter::default() };
    assert_eq!(find(part("FIND")).await, ["find-B", "find_a", "findxa"]);
    assert_eq!(find(part("d_a")).await, ["find_a"], "`_` is no wildcard");
    assert_eq!(find(part("%")).await, [""; 0]);
    assert_eq!(find(WorkflowFilter { paused: Some(true), ..part("find") }).await, ["find-B"]);
    assert_eq!(find(WorkflowFilter { active: Some(false), ..part("find") }).await, ["findxa"]);
    let tagged =
        |tags: &[&str]| WorkflowFilter { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), ..part("") };
    assert_eq!(find(tagged(&["y"])).await, ["find-B", "find_a"]);
    assert_eq!(find(tagged(&["y", "x"])).await, ["find_a"]);
    let page = store.workflows(&part("find"), Paging { limit: 1, offset: 1 }).await.unwrap();
    assert_eq!((page.rows.len(), page.rows[0].tags.len(), page.total), (1, 2, 3));
    let tags = store.tags().await.unwrap();
    assert!(tags.contains(&"x".to_owned()) && !tags.contains(&"gone".to_owned()) && tags.is_sorted(), "{tags:?}");
}

pub async fn file_errors_come_and_go(store: &Store) {
    store.put_file_error("/b.yaml", "no tasks", at(1)).await.unwrap();
    store.put_file_error("/a.yaml", "bad", at(2)).await.unwrap();
    store.put_file_error("/b.yaml", "no tasks", at(3)).await.unwrap();
    let errors = store.file_errors().await.unwrap();
    let seen: Vec<_> = errors.iter().map(|error| (error.path.as_str(), error.message.as_str(), error.at)).collect();
    assert_eq!(seen, [("/a.yaml", "bad", at(2)), ("/b.yaml", "no tasks", at(1))]);
    store.put_file_error("/b.yaml", "a cycle", at(4)).await.unwrap();
    assert_eq!(store.file_errors().await.unwrap()[1].at, at(4));
    assert!(store.clear_file_error("/a.yaml").await.unwrap());
    assert!(!store.clear_file_error("/a.yaml").await.unwrap());
    assert!(store.clear_file_error("/b.yaml").await.unwrap());
}
