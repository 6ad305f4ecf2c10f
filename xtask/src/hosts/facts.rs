//! What is shown on the other hosts: the facts that libvirt, QEMU or the tools beside them can make differ. What
//! depends on SEE alone is shown once, on this host.

use std::time::Duration;

/// What all of it is to take at most on a quiet machine of two cores.
pub(crate) const FACTS_TAKE: Duration = Duration::from_secs(300);

/// Tests of one program.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Its crate, and its name in it.
    pub(crate) program: &'static str,
    pub(crate) tests: &'static [&'static str],
}

/// Every fact, by program in alphabetic order.
pub(crate) const FACTS: &[Facts] = &[
    // What libvirt's own schema knows of a domain.
    Facts {
        program: "see-context see_context",
        tests: &[
            "admission::tests::walk::no_file_of_the_host_passes_in_an_open_network_unless_it_is_harmless",
            "admission::tests::walk::nothing_outside_of_the_machine_passes_in_a_closed_network_unless_it_is_harmless",
        ],
    },
    // What libvirt asks the emulators, and keeps.
    Facts {
        program: "see-libvirt embedded",
        tests: &[
            "domain::a_machine_starts_where_libvirt_has_to_ask_the_emulator_again_and_it_has_no_capabilities",
        ],
    },
    // Every promise of a backend, among them that nothing is left wherever an allocation stops.
    Facts {
        program: "see-tests conformance",
        tests: &[
            "container::containers_pass_the_conformance_suite",
            "embedded::embedded_qemu_passes_the_conformance_suite",
            "system::qemu_on_the_system_daemon_passes_the_conformance_suite",
        ],
    },
    // libvirt's LXC driver: its control groups, folders, networks, signals, and what a crash leaves of it.
    Facts {
        program: "see-tests containers",
        tests: &[
            "a_container_in_a_closed_network_proves_it_and_reaches_neither_the_host_nor_another_one",
            "a_container_on_a_network_is_reached_over_tcp_and_restarts_when_signalled",
            "a_container_whose_owner_was_killed_is_collected_with_its_folders",
            "a_host_folder_is_there_while_its_container_runs_and_links_out_of_it_are_not_followed",
            "a_sample_runs_in_a_container_that_shuts_down_when_signalled_and_leaves_no_host_folder",
            "hostile::what_is_made_harmless_lets_no_container_out",
            "limits::a_container_of_too_many_processes_or_too_much_processor_time_ends_and_the_limit_is_named",
            "limits::a_container_that_uses_up_its_memory_ends_its_run_named",
            "limits::a_container_that_writes_much_to_its_console_goes_on_and_is_ended_at_the_limit",
            "refused::a_container_that_libvirt_refuses_leaves_nothing",
            "refused::a_container_with_a_further_folder_or_disk_of_the_host_is_refused_and_the_host_keeps_its_files",
        ],
    },
    // The embedded driver: the folders that libvirt makes in its root, QEMU's monitor, pictures, and events.
    Facts {
        program: "see-tests embedded",
        tests: &[
            "power::a_guest_that_switches_itself_off_or_restarts_is_told_and_one_that_is_started_again_becomes_ready",
            "power::a_machine_whose_panic_device_is_written_to_has_crashed_and_can_be_switched_off",
            "power::a_paused_machine_can_be_switched_off_and_one_whose_emulator_is_killed_has_crashed",
            "power::a_suspended_guest_stands_still_and_goes_on_where_it_stood",
            "power::an_emulator_that_hangs_is_switched_off_past_the_command_that_hangs_on_it",
            "runs::a_sample_runs_and_all_is_told_pictures_show_something_and_nothing_is_left_but_the_results",
        ],
    },
    // How libvirt reads what is in a domain's XML, and which devices QEMU makes of it.
    Facts {
        program: "see-tests hostile_xml",
        tests: &[
            "all_ways_out_of_a_closed_network_are_told_at_once",
            "each_way_out_of_a_machine_without_a_network_is_refused_at_its_line",
            "what_is_made_harmless_lets_no_guest_without_a_network_out",
        ],
    },
    // Which files the daemon's emulators open: an image that was fetched lies in a store that is closed to them.
    Facts {
        program: "see-tests images",
        tests: &[
            "starts::an_image_of_a_web_server_starts_on_the_system_daemon_with_default_settings",
            "starts::an_image_of_glance_starts_on_the_system_daemon_with_default_settings",
            "starts::an_image_of_s3_starts_on_the_system_daemon_with_default_settings",
        ],
    },
    // What libvirt, swtpm and dnsmasq leave on the host.
    Facts {
        program: "see-tests leftovers",
        tests: &[
            "a_network_that_libvirt_cannot_start_leaves_no_files_of_its_address_server",
            "a_run_on_a_network_of_its_own_looks_for_the_bridge_and_the_address_servers_files",
            "a_run_on_the_daemon_leaves_no_log_and_says_where_it_looked",
            "of_a_start_that_failed_the_hypervisors_log_is_kept_with_the_results_and_nothing_else",
            "the_collection_of_a_kept_machine_removes_its_log_and_the_rotated_ones",
        ],
    },
    // A daemon that is killed: what the next one of this libvirt finds again of machines and containers.
    Facts {
        program: "see-tests lost",
        tests: &[
            "a_libvirtd_that_is_killed_and_restarted_in_any_phase_of_a_container_costs_nothing",
            "a_libvirtd_that_is_killed_and_restarted_in_any_phase_of_a_machine_costs_nothing",
        ],
    },
    // libvirt's networks and rules, nftables, bridges, dnsmasq, and the closed networks built on them.
    Facts {
        program: "see-tests networks",
        tests: &[
            "addresses::each_mode_runs_on_a_host_that_routes_private_ranges_elsewhere",
            "crashes::what_a_daemon_forgets_of_a_network_goes_with_the_run_or_its_collection_and_a_strangers_bridge_stays",
            "guard::rules_and_ports_that_are_changed_or_gone_end_the_runs_behind_them_and_mark_their_results",
            "hosts::a_guest_is_connected_to_a_bridge_of_the_hosts_which_stays_as_it_is",
            "hosts::closed_networks_need_no_chains_of_libvirts_where_the_host_forwards_and_others_tell_what_is_missing",
            "isolated::an_isolated_guest_answers_its_agents_host_and_reaches_nothing",
            "modes::a_guest_behind_nat_has_a_lease_and_reaches_the_world_through_its_gateway",
            "modes::a_guest_without_a_network_loses_the_interface_of_its_domains_xml",
            "proof::a_guest_tries_everything_before_its_sample_runs_and_proves_its_network_closed",
            "rights::closed_networks_are_refused_to_whoever_may_not_load_firewall_rules",
            "shared::guests_on_the_shared_network_reach_neither_each_other_nor_the_host_nor_the_world",
        ],
    },
    // The domains that other programs write, as libvirt reads them.
    Facts {
        program: "see-tests ordinary_xml",
        tests: &["domains_of_other_programs_run_at_once_on_closed_networks_one_of_them_twice"],
    },
    // Who may use the daemon, and the daemon of an ordinary user's session.
    Facts {
        program: "see-tests privileges",
        tests: &[
            "a_member_of_the_group_runs_samples_on_the_systems_daemon_and_others_are_told_how",
            "an_ordinary_user_runs_samples_in_a_session_daemon_of_its_own",
        ],
    },
    // What a machine can be is libvirt's own answer, and by which error it refuses one.
    Facts {
        program: "see-tests refusals",
        tests: &[
            "a_domain_that_the_daemon_refuses_is_told_and_its_neighbour_finishes",
            "a_machine_processor_or_firmware_that_the_daemon_does_not_have_is_told_before_anything_is_made",
            "an_emulator_that_may_not_open_its_image_is_a_want_of_rights",
        ],
    },
    // Other hosts: the words of SSH and TLS, libvirt's volumes and pools, and their owners.
    Facts {
        program: "see-tests remote",
        tests: &[
            "a_sample_runs_on_another_host_over_ssh_and_its_results_come_here",
            "a_sample_runs_on_another_host_over_tls_and_its_results_come_here",
            "connections::a_connection_that_is_refused_is_one_error_that_says_what_in_the_uri_to_change",
            "uploads::a_guest_that_starts_from_a_shared_image_leaves_it_as_it_is_and_to_its_owner",
            "uploads::sandboxes_of_two_users_share_one_upload_and_the_last_one_removes_it",
            "uploads::sandboxes_that_come_and_go_at_once_all_find_their_image_and_leave_none",
        ],
    },
    // Owners and modes of the user's files, pools and volumes, and the firmware that libvirt chooses.
    Facts {
        program: "see-tests storage",
        tests: &[
            "disks::a_guest_that_writes_to_every_disk_changes_no_file_of_the_users_nor_a_stray_one_in_the_pool",
            "firmware::a_machine_that_boots_by_uefi_has_variables_of_its_own_which_go_with_it",
            "firmware::on_the_system_daemon_each_machine_has_variables_of_its_own_which_go_with_it_also_when_it_is_killed",
            "names::a_domain_that_has_the_name_and_the_uuid_of_a_sandbox_is_refused_and_stays_as_it_is",
            "owners::on_the_system_daemon_kernel_initrd_and_image_keep_owner_and_mode_before_during_and_after_a_run",
            "pools::an_image_added_to_an_existing_pool_is_found_and_the_pool_stays_as_it_is",
            "pools::the_pool_of_a_sandbox_is_transient_and_goes_with_it",
        ],
    },
    // Machines of the system daemon: leases, shutdown, what is others' on the same host.
    Facts {
        program: "see-tests system",
        tests: &[
            "a_guest_on_a_network_of_its_own_gets_an_address_and_shuts_down_when_asked",
            "a_guest_that_ignores_the_power_button_is_switched_off_at_the_deadline",
            "a_network_of_the_users_own_keeps_its_addresses",
            "foreign::what_is_somebody_elses_is_left_alone_and_its_subnet_too",
            "the_base_image_is_not_given_to_the_emulators_account",
            "who_may_not_use_the_daemon_is_told_so",
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_tests_stand_in_alphabetic_order_each_once() {
        assert!(FACTS.is_sorted_by(|one, next| one.program < next.program));
        for facts in FACTS {
            assert!(
                facts.tests.is_sorted_by(|one, next| one < next),
                "{}",
                facts.program
            );
        }
    }
}
