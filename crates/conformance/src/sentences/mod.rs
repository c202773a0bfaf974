//! The sentences, by what they are about. Each is listed in [`pods!`](crate::pods), which makes tests of them.

pub mod beside;
pub mod ends;
pub mod files;
pub mod images;
pub mod keeping;
pub mod steps;
pub mod values;

/// Writes one test for each sentence and world: `pods!(module = Type, …)`.
#[macro_export]
macro_rules! pods {
    ($($module:ident = $world:ty),* $(,)?) => {
        $(mod $module {
            $crate::pods! { @tests $world:
                steps:
                    steps_run_in_order_and_share_their_volumes_and_nothing_else
                    the_first_step_that_fails_is_the_last_that_runs
                    a_step_that_may_fail_leaves_its_code_and_the_next_one_runs
                    a_step_whose_guard_is_false_is_skipped_and_says_so
                    other_steps_directories_cannot_be_written_not_even_by_root
                    pods_at_the_same_time_see_nothing_of_each_other;
                values:
                    results_are_verbatim_and_typed_also_after_a_failure
                    results_of_a_step_reach_arguments_and_environment_of_later_ones
                    a_link_or_a_fifo_as_a_result_is_refused;
                files:
                    a_read_only_mount_cannot_be_written_also_by_root
                    a_volume_in_memory_is_shared_as_one_on_a_disk
                    a_part_of_a_volume_is_a_directory_of_it
                    given_files_have_their_modes_and_cannot_be_written
                    what_a_secret_holds_is_not_in_the_log
                    what_a_step_writes_goes_to_its_files_and_to_the_log;
                images:
                    an_image_that_is_not_there_is_told_with_its_name
                    the_entry_point_is_the_images_where_nothing_is_said
                    a_program_that_is_not_there_is_told_with_its_name
                    variables_know_earlier_ones_and_reach_commands_and_arguments
                    a_working_directory_is_made_and_the_host_name_is_the_pods
                    the_user_is_the_one_that_was_asked_for
                    a_root_that_was_forbidden_is_refused
                    a_read_only_root_leaves_the_volumes_writable;
                beside:
                    sidecars_are_ready_before_the_first_step_and_gone_after_the_last
                    a_sidecar_is_asked_to_end
                    a_sidecar_is_asked_over_the_network
                    a_sidecar_that_is_never_ready_ends_the_pod_with_words
                    a_sidecar_that_ends_before_it_is_ready_ends_the_pod_with_words
                    while_its_sidecars_are_not_ready_a_pod_can_end;
                ends:
                    a_step_that_takes_too_long_ends_the_pod_with_its_name
                    a_pod_that_takes_too_long_ends_as_that
                    cancelled_during_a_step_nothing_of_the_next_one_runs_and_the_log_is_kept
                    cancelled_before_it_began_it_never_begins
                    cancelled_after_its_end_nothing_changes;
                keeping:
                    the_server_dies_during_a_step_and_the_pod_goes_on
                    started_twice_is_started_once
                    the_keeper_dies_and_the_end_is_told_as_what_it_is
                    a_log_resumes_at_every_offset_by_container
                    cleanup_leaves_the_log_and_the_end_and_nothing_else;
            }
        })*
    };
    (@tests $world:ty: $($area:ident: $($name:ident)*;)*) => {
        $(mod $area {
            $(#[test]
            fn $name() {
                $crate::run::<$world, _>(stringify!($name), $crate::sentences::$area::$name);
            })*
        })*
    };
}
