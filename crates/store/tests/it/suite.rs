//! What every store does. The parts use workflows of their own, so they run one after the other on one store.

mod across;
mod deliveries;
mod ecs;
mod files;
mod nodes;
mod objects;
mod outbox;
pub mod ownership;
mod people;
mod quotas;
mod recovery;
mod runs;
mod secrets;
mod settings;
mod workers;
mod workflows;
mod writes;

use pitcrew_store::Store;

/// Everything that one store can show, in a new and empty one.
pub async fn exercise(store: &Store) {
    settings::a_new_store_has_the_default_pool(store).await;
    settings::variables_are_set_described_and_deleted_with_an_audit_entry(store).await;
    settings::pools_change_but_the_default_one_stays(store).await;
    settings::a_setting_is_kept_and_made_once(store).await;
    files::who_has_files_of_a_run_is_noted_until_another_has_them(store).await;
    people::users_sign_in_and_go_with_their_tokens(store).await;
    people::connections_are_kept_as_given(store).await;
    secrets::a_secret_counts_its_values(store).await;
    objects::an_object_is_itself_through_its_changes(store).await;
    objects::a_run_and_its_object_are_made_together_and_go_together(store).await;
    deliveries::a_delivery_waits_until_it_is_settled(store).await;
    deliveries::what_comes_twice_is_known_for_as_long_as_it_was_said(store).await;
    deliveries::a_delivery_is_sent_once_more_from_here(store).await;
    nodes::changes_of_a_node_add_up_beside_what_is_seen_of_it(store).await;
    nodes::samples_of_a_node_are_kept_for_a_while(store).await;
    nodes::what_ended_on_a_node_is_found_and_what_ended_on_a_worker_is_counted(store).await;
    quotas::quotas_are_put_changed_and_deleted_with_an_audit_entry(store).await;
    recovery::what_recovery_knows_is_written_at_once_and_read_by_the_next(store).await;
    workers::a_worker_enrols_with_a_token_that_works_and_a_name_that_is_free(store).await;
    workflows::a_workflow_keeps_its_pause_its_versions_and_its_tags(store).await;
    workflows::workflows_are_found_by_part_of_the_id_tag_and_state(store).await;
    workflows::file_errors_come_and_go(store).await;
    runs::a_run_is_made_once_per_id_and_per_logical_date(store).await;
    runs::runs_are_listed_in_every_order(store).await;
    runs::counts_and_neighbours_of_runs(store).await;
    runs::runs_and_workflows_are_deleted_when_nothing_needs_them(store).await;
    writes::every_field_survives(store).await;
    writes::the_last_of_equal_rows_counts(store).await;
    writes::a_mapping_replaces_its_placeholder(store).await;
    writes::a_final_run_stays_final_until_it_is_reopened(store).await;
    writes::an_instance_has_one_live_attempt(store).await;
    writes::a_commit_is_all_or_nothing_and_spoils_no_other(store).await;
    writes::instances_are_paged_and_filtered(store).await;
    ownership::only_the_owner_writes(store).await;
    ownership::runs_of_the_dead_are_claimed_and_of_the_living_not(store).await;
    ownership::one_owner_leads(store).await;
    ownership::a_change_wakes_those_who_wait(store).await;
    outbox::notices_are_sent_once_and_tried_again(store).await;
    outbox::a_backfill_is_paused_cancelled_and_completed(store).await;
    ecs::what_is_on_ecs_is_told_in_the_words_of_the_system_before(store).await;
    across::many_runs_are_asked_at_once(store).await;
    across::the_audit_log_is_searched(store).await;
    runs::retention_removes_what_is_old_and_reports_it_until_told(store).await;
}

/// What two stores over one database, as two processes have them, must see of each other.
pub async fn exercise_two(one: &Store, two: &Store) {
    ownership::two_stores_respect_each_other(one, two).await;
}
