use super::*;
use crate::Tables;

fn eight() -> Expected {
    let device = |index: u32| Device {
        index,
        uuid: format!("GPU-{index}"),
        pci: Pci::read(&format!("0000:{:02x}:00", 0x10 + index)),
    };
    Expected { devices: (0..8).map(device).collect() }
}

fn diag(code: i32, output: &str, expected: &Expected) -> Report {
    read_diag(&Ended::Code(code), output.as_bytes(), expected, Tables::usual())
}

fn faults(report: &Report) -> &[Fault] {
    match &report.verdict {
        Verdict::Fail { faults } => faults,
        other => panic!("{other:?}"),
    }
}

fn again_after(report: &Report) -> u32 {
    match &report.verdict {
        Verdict::Infrastructure { again_after, .. } => *again_after,
        other => panic!("{other:?}"),
    }
}

fn why(report: &Report) -> &str {
    match &report.verdict {
        Verdict::Inconclusive { why } => why,
        other => panic!("{other:?}"),
    }
}

/// One test of DCGM 4 on some GPUs, with a status for each.
fn version_4(results: &str) -> String {
    let all: Vec<String> = (0..8).map(|id| format!(r#"{{"entity_id":{id},"device_id":"2330"}}"#)).collect();
    format!(
        r#"Successfully ran diagnostic for group.
{{"DCGM Diagnostic":{{"test_categories":[{{"category":"Deployment","tests":[
   {{"name":"software","results":[{{"entity_group":"GPU","entity_group_id":1,"entity_id":0,"status":"Pass"}}],"test_summary":{{"status":"Pass"}}}},
   {{"name":"memory","results":[{results}],"test_summary":{{"status":"Fail"}}}}]}}]}},
 "entity_groups":[{{"entity_group":"GPU","entity_group_id":1,"entities":[{}]}},{{"entity_group":"CPU","entity_group_id":7,"entities":[{{"entity_id":64}}]}}],
 "metadata":{{"version":"4.2.0","Driver Version Detected":"555.44"}}}}
noise after, with a brace }}"#,
        all.join(",")
    )
}

fn result(id: u32, status: &str, error: &str) -> String {
    let warnings = if error.is_empty() { String::new() } else { format!(r#","warnings":[{error}]"#) };
    format!(r#"{{"entity_group":"GPU","entity_group_id":1,"entity_id":{id},"status":"{status}"{warnings}}}"#)
}

#[test]
fn a_diagnosis_of_dcgm_4_names_the_gpu_the_error_and_what_helps() {
    let pending =
        r#"{"warning":"GPU 3 has row remappings pending","error_id":85,"error_category":10,"error_severity":6}"#;
    let report = diag(226, &version_4(&(result(0, "Pass", "") + "," + &result(3, "Fail", pending))), &eight());
    let [fault] = faults(&report) else { panic!("{report:?}") };
    assert_eq!((fault.gpu.as_deref(), fault.error, fault.action), (Some("GPU-3"), Some(85), Action::ResetGpu));
    assert_eq!(report.outcome(), CheckOutcome::Fail { gpus: vec!["GPU-3".to_owned()], advice: Advice::ResetGpu });
    assert!(!report.is_weaker() && report.in_words().contains("GPU-3: memory: "), "{}", report.in_words());
    // The strongest of several counts, and an error that is in no table is asked about.
    let faulty = r#"{"warning":"does not hold what is written","error_id":52,"error_category":10,"error_severity":2}"#;
    let odd = r#"{"warning":"new","error_id":4711,"error_category":99,"error_severity":9}"#;
    let results = [result(3, "Fail", pending), result(5, "Fail", faulty), result(6, "Fail", odd)].join(",");
    let report = diag(226, &version_4(&results), &eight());
    let gpus = ["GPU-3", "GPU-5", "GPU-6"].map(str::to_owned).to_vec();
    assert_eq!(report.outcome(), CheckOutcome::Fail { gpus, advice: Advice::Replace });
}

#[test]
fn what_passes_passes_and_warnings_are_remarks() {
    let all = |status: &str| (0..8).map(|id| result(id, status, "")).collect::<Vec<_>>().join(",");
    let pass =
        version_4(&all("Pass")).replace(r#""test_summary":{"status":"Fail"}"#, r#""test_summary":{"status":"Pass"}"#);
    assert_eq!(diag(0, &pass, &eight()).verdict, Verdict::Pass);
    // An end that asks for isolation, and not one test that failed: known of DCGM, and no verdict against a GPU.
    let report = diag(205, &pass, &eight());
    assert_eq!((report.outcome(), report.remarks.len()), (CheckOutcome::Pass, 1));
    assert!(why(&diag(226, &pass, &eight())).contains("every test that it passed"));
    let warn = r#"{"warning":"clocks are low","error_id":12,"error_category":14,"error_severity":1}"#;
    let report = diag(0, &pass.replace(&result(2, "Pass", ""), &result(2, "Warn", warn)), &eight());
    assert_eq!(
        (report.outcome(), report.remarks.as_slice()),
        (CheckOutcome::Pass, &["memory: clocks are low".to_owned()][..])
    );
    // A failure that only says "keep an eye on it" explains why the end was 226.
    let report = diag(226, &pass.replace(&result(2, "Pass", ""), &result(2, "Fail", warn)), &eight());
    assert_eq!(report.outcome(), CheckOutcome::Pass);
    // The configuration is at fault: no repair changes that, and it is no pass.
    let config = r#"{"warning":"CUDA_VISIBLE_DEVICES is set","error_id":28,"error_category":6,"error_severity":5}"#;
    let report = diag(226, &pass.replace(&result(2, "Pass", ""), &result(2, "Fail", config)), &eight());
    assert!(why(&report).contains("CUDA_VISIBLE_DEVICES"));
    let skipped = version_4(&all("Skip")).replace("\"Pass\"", "\"Skip\"").replace("\"Fail\"", "\"Skip\"");
    assert!(why(&diag(0, &skipped, &eight())).contains("left out"));
}

#[test]
fn a_gpu_that_is_not_there_fails_a_check_that_all_others_pass() {
    let results: Vec<String> = (0..8).map(|id| result(id, "Pass", "")).collect();
    let pass = version_4(&results.join(","))
        .replace(r#""test_summary":{"status":"Fail"}"#, r#""test_summary":{"status":"Pass"}"#);
    let seven = pass
        .replace(r#"{"entity_id":7,"device_id":"2330"}"#, r#"{"entity_id":6}"#)
        .replace(&result(7, "Pass", ""), &result(6, "Pass", ""));
    let report = diag(0, &seven, &eight());
    let [fault] = faults(&report) else { panic!("{report:?}") };
    assert_eq!((fault.gpu.as_deref(), fault.action), (Some("GPU-7"), Action::RebootNode));
    assert_eq!(diag(0, &seven, &Expected::default()).verdict, Verdict::Pass);
}

#[test]
fn a_diagnosis_of_dcgm_3_and_several_iterations_are_read() {
    let old = r#"{"DCGM GPU Diagnostic":{"test_categories":[{"category":"Deployment","tests":[
        {"name":"Permissions and OS Blocks","results":[{"gpu_ids":"0,1,2,3,4,5,6,7","status":"Pass"}]},
        {"name":"GPU Memory","results":[{"gpu_ids":"0,1,2,3,4,5,7","status":"Pass"},{"gpu_ids":"6","status":"Fail","warnings":"Row remapping failed"}]}]}]}}"#;
    let report = diag(226, old, &eight());
    let [fault] = faults(&report) else { panic!("{report:?}") };
    assert_eq!((fault.gpu.as_deref(), fault.error, fault.action), (Some("GPU-6"), None, Action::RebootNode));
    assert_eq!(fault.text, "Row remapping failed");
    let single = r#"{"DCGM GPU Diagnostic":{"test_categories":[{"category":"x","tests":[{"name":"Memory","results":[{"gpu_id":"2","status":"FAIL"}]}]}]}}"#;
    assert_eq!(faults(&diag(226, single, &Expected::default()))[0].text, "GPU 2: it failed");
    let iterations = format!(
        r#"{{"iterations":[{}, {old}],"Overall Result":"Fail","Warning":"x"}}"#,
        old.replace("\"Fail\"", "\"Pass\"")
    );
    assert_eq!(faults(&diag(226, &iterations, &eight())).len(), 1);
    let fine = iterations.replace("\"status\":\"Fail\"", "\"status\":\"Pass\"");
    assert_eq!(diag(0, &fine, &eight()).verdict, Verdict::Pass);
}

#[test]
fn a_summary_may_be_all_that_says_that_a_test_failed() {
    let lost = r#"{"DCGM Diagnostic":{"test_categories":[{"category":"Hardware","tests":[{"name":"pcie","results":[],
        "test_summary":{"status":"Fail","warnings":[{"warning":"GPU has fallen off the bus","error_id":120,"error_category":15,"error_severity":2}]}}]}]}}"#;
    let report = diag(226, lost, &Expected::default());
    assert_eq!(report.outcome(), CheckOutcome::Fail { gpus: vec![], advice: Advice::Reboot });
}

#[test]
fn the_table_for_people_is_read_as_well() {
    let old = "Successfully ran diagnostic for group.\n+---------------------------+------------------------------------------------+\n\
        | Diagnostic                | Result                                         |\n+===========================+================================================+\n\
        |-----  Deployment  --------+------------------------------------------------|\n| Denylist                  | Pass                                           |\n\
        | Page Retirement/Row Remap | Pass                                           |\n+-----  Hardware  ----------+------------------------------------------------+\n\
        | GPU Memory                | Pass - GPUs: 1, 2, 3, 4, 5, 6, 7               |\n|                           | Fail - GPU: 0                                  |\n\
        | Warning                   | GPU 0 does not hold what                       |\n|                           | is written                                     |\n";
    let report = diag(226, old, &eight());
    let [fault] = faults(&report) else { panic!("{report:?}") };
    assert_eq!((fault.gpu.as_deref(), fault.test.as_str()), (Some("GPU-0"), "GPU Memory"));
    assert_eq!(fault.text, "GPU 0 does not hold what is written");
    let new = "| memory                    | Fail                                           |\n|                           | GPU0: Pass                                     |\n\
        |                           | GPU1: Fail                                     |\n| Warning: GPU1             | x                                              |\n";
    let report = diag(226, new, &Expected { devices: eight().devices[..2].to_vec() });
    assert_eq!(faults(&report).iter().map(|fault| fault.gpu.as_deref()).collect::<Vec<_>>(), [Some("GPU-1")]);
    let passed: String = old.lines().filter(|line| !line.contains("Fail")).map(|line| format!("{line}\n")).collect();
    assert_eq!(diag(0, &passed.replace("1, 2", "0, 1, 2"), &eight()).verdict, Verdict::Pass);
}

/// Weakness 5: an end that nobody thought of left a job waiting for ever.
#[test]
fn every_end_of_dcgmi_has_a_meaning_and_none_is_for_ever() {
    let none = Expected::default();
    for (code, seconds) in [
        (217, 60),
        (215, 60),
        (204, 300),
        (203, 60),
        (235, 60),
        (245, 30),
        (239, 300),
        (222, 60),
        (198, 300),
        (190, 30),
        (254, 60),
        (127, 300),
        (137, 30),
        (143, 30),
    ] {
        assert_eq!(again_after(&diag(code, "Error: x", &none)), seconds, "{code}");
    }
    assert_eq!(diag(238, "", &none).outcome(), CheckOutcome::Fail { gpus: vec![], advice: Advice::Reboot });
    assert_eq!(diag(237, "", &none).outcome(), CheckOutcome::Fail { gpus: vec![], advice: Advice::ResetGpu });
    // A wrapper's 1, a timeout, nothing printed, signals, and what nobody knows: looked at again, and never a pass.
    for code in [0, 1, 2, 124, 139, 205, 213, 226, 255, -1, 300] {
        assert!(!why(&diag(code, "", &none)).is_empty(), "{code}");
    }
    assert!(why(&diag(1, "", &none)).contains("not DCGM's"));
    assert!(why(&diag(213, "", &none)).contains("-43"));
    let never = read_diag(&Ended::NeverRan("no image".to_owned()), b"", &none, Tables::usual());
    assert_eq!((again_after(&never), never.outcome()), (60, CheckOutcome::Infrastructure));
    let hung = read_diag(&Ended::TimedOut, b"", &none, Tables::usual());
    assert_eq!(hung.outcome(), CheckOutcome::Inconclusive);
    let killed = read_diag(&Ended::Signal(9), b"", &none, Tables::usual());
    assert_eq!(again_after(&killed), 30);
    // What DCGM says in words.
    let error = |text: &str| {
        diag(226, &format!(r#"{{"DCGM Diagnostic":{{"runtime_error":"{text}","version":"4.2"}}}}"#), &none)
    };
    assert_eq!(again_after(&error("A diag instance is already running")), 60);
    assert_eq!(why(&error("something else")), "something else");
}

#[test]
fn what_is_whole_counts_although_the_end_was_not() {
    let lost = r#"{"warning":"lost","error_id":120,"error_category":15,"error_severity":2}"#;
    let output = version_4(&result(3, "Fail", lost));
    assert_eq!(faults(&diag(137, &output, &eight()))[0].action, Action::RebootNode);
    // But a pass that was cut off is none.
    let pass = output.replace("\"Fail\"", "\"Pass\"");
    assert_eq!(
        read_diag(&Ended::TimedOut, pass.as_bytes(), &eight(), Tables::usual()).outcome(),
        CheckOutcome::Inconclusive
    );
    assert_eq!(diag(137, &pass, &eight()).outcome(), CheckOutcome::Infrastructure);
    assert_eq!(diag(226, &pass[..300], &eight()).outcome(), CheckOutcome::Inconclusive);
}

#[test]
fn health_watches_are_read() {
    let json = |overall: &str, system: &str, word: &str| {
        format!(
            r#"{{"body":{{"GPU":{{"children":{{"5":{{"children":{{"Errors":{{"children":{{"{system}":{{"overflow":["It is","bad"],"value":"{word}"}}}}}}}},"value":"{word}"}}}}}},
            "Overall Health":{{"value":"{overall}"}}}},"header":["Health Monitor Report"]}}"#
        )
    };
    let read = |text: &str| read_health(&Ended::Code(0), text.as_bytes(), &eight());
    let report = read(&json("Failure", "Memory system", "Failure"));
    let [fault] = faults(&report) else { panic!("{report:?}") };
    assert_eq!((fault.gpu.as_deref(), fault.action), (Some("GPU-5"), Action::ResetGpu));
    assert!(fault.text.contains("It is bad"), "{}", fault.text);
    for (system, action) in [
        ("PCIe system", Action::RebootNode),
        ("NVLINK system", Action::Nvlink),
        ("Thermal system", Action::CheckThermals),
        ("Internal error", Action::Diagnose),
    ] {
        assert_eq!(faults(&read(&json("Failure", system, "Failure")))[0].action, action);
    }
    let report = read(&json("Warning", "PCIe system", "Warning"));
    assert_eq!((report.outcome(), report.remarks.len(), report.is_weaker()), (CheckOutcome::Pass, 1, true));
    assert_eq!(read(r#"{"body":{"Overall Health":{"value":"Healthy"}},"header":["x"]}"#).outcome(), CheckOutcome::Pass);
    assert_eq!(read(r#"{"body":{"Overall Health":{"value":"Failure"}}}"#).outcome(), CheckOutcome::Inconclusive);
    assert_eq!(again_after(&read("Error: Health watches not enabled. Please enable watches.")), 60);
    assert_eq!(read("").outcome(), CheckOutcome::Inconclusive);
    assert_eq!(read_health(&Ended::Code(235), b"", &eight()).outcome(), CheckOutcome::Infrastructure);
}

/// A part of what `nvidia-smi -q` prints about a GPU.
fn smi_gpu(index: u32, changes: &[(&str, &str)]) -> String {
    let mut text = format!(
        "GPU 00000000:{:02X}:00.0\n    Product Name                          : NVIDIA H100 80GB HBM3\n    GPU UUID                              : GPU-{index}\n    \
         GPU Recovery Action                   : None\n    Clocks Event Reasons\n        Idle                              : Active\n        HW Slowdown                       : Not Active\n            \
         HW Thermal Slowdown           : Not Active\n            HW Power Brake Slowdown       : Not Active\n    ECC Errors\n        Volatile\n            SRAM Correctable              : 0\n            \
         SRAM Uncorrectable Parity     : 0\n            SRAM Uncorrectable SEC-DED    : 0\n            DRAM Correctable              : 177\n            DRAM Uncorrectable            : 0\n        \
         Aggregate\n            SRAM Uncorrectable Parity     : 0\n            SRAM Uncorrectable SEC-DED    : 1\n            SRAM Threshold Exceeded       : No\n    \
         Remapped Rows\n        Correctable Error                 : 1\n        Uncorrectable Error               : 0\n        Pending                           : No\n        \
         Remapping Failure Occurred        : No\n        Bank Remap Availability Histogram\n            Max                           : 639 bank(s)\n    Temperature\n        GPU Current Temp                  : 31 C\n\n",
        0x10 + index
    );
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    text
}

fn smi(code: i32, text: &str, count: usize) -> Report {
    read_smi(
        &Ended::Code(code),
        format!("==============NVSMI LOG==============\n\nAttached GPUs : 8\n{text}").as_bytes(),
        &Expected { devices: eight().devices[..count].to_vec() },
    )
}

#[test]
fn without_dcgm_the_driver_itself_is_asked_and_a_pass_says_less() {
    let report = smi(0, &(smi_gpu(0, &[]) + &smi_gpu(1, &[])), 2);
    assert_eq!((report.outcome(), report.is_weaker()), (CheckOutcome::Pass, true));
    assert!(report.in_words().contains("weaker"));
    let sick = |changes: &[(&str, &str)]| {
        let report = smi(0, &(smi_gpu(0, &[]) + &smi_gpu(1, changes)), 2);
        let all: Vec<(Option<String>, Action)> =
            faults(&report).iter().map(|fault| (fault.gpu.clone(), fault.action)).collect();
        let [(gpu, action)] = &all[..] else { panic!("{report:?}") };
        assert_eq!(gpu.as_deref(), Some("GPU-1"));
        *action
    };
    assert_eq!(sick(&[("Recovery Action                   : None", "Recovery Action : Reset")]), Action::ResetGpu);
    assert_eq!(sick(&[("Recovery Action                   : None", "Recovery Action : Reboot")]), Action::RebootNode);
    assert_eq!(
        sick(&[("Recovery Action                   : None", "Recovery Action : Drain and Reset")]),
        Action::ResetGpu
    );
    assert_eq!(sick(&[("        Pending                           : No", "        Pending : Yes")]), Action::ResetGpu);
    assert_eq!(
        sick(&[("Remapping Failure Occurred        : No", "Remapping Failure Occurred : Yes")]),
        Action::FieldDiag
    );
    assert_eq!(sick(&[("SRAM Threshold Exceeded       : No", "SRAM Threshold Exceeded : Yes")]), Action::FieldDiag);
    assert_eq!(sick(&[("SRAM Uncorrectable Parity     : 0", "SRAM Uncorrectable Parity : 2")]), Action::ResetGpu);
    assert_eq!(
        sick(&[("GPU Current Temp                  : 31 C", "GPU Current Temp : [GPU requires reset]")]),
        Action::ResetGpu
    );
    assert_eq!(
        sick(&[("GPU Current Temp                  : 31 C", "GPU Current Temp : [Unknown Error]")]),
        Action::RebootNode
    );
    let old = [
        ("            SRAM Threshold Exceeded       : No\n", ""),
        ("SRAM Uncorrectable SEC-DED    : 1", "SRAM Uncorrectable SEC-DED : 5"),
    ];
    assert_eq!(sick(&old), Action::FieldDiag, "an older driver does not tell of the threshold");
    // What is only not offered any more, and what another GPU says, is no fault of this one.
    let harmless = [
        ("31 C", "[Requested functionality has been deprecated]"),
        ("Recovery Action                   : None", "Recovery Action : Sing"),
    ];
    let report = smi(0, &(smi_gpu(0, &harmless) + &smi_gpu(1, &[("31 C", "[GPU requires reset]")])), 1);
    assert_eq!((report.outcome(), report.remarks.len()), (CheckOutcome::Pass, 2), "{report:?}");
    // What a device does not tell is neither well nor broken; heat is worth a remark.
    let shy = [
        ("        Pending                           : No", "        Pending : N/A"),
        ("31 C", "[N/A]"),
        ("HW Thermal Slowdown           : Not Active", "HW Thermal Slowdown : Active"),
    ];
    let report = smi(0, &smi_gpu(0, &shy), 1);
    assert_eq!((report.outcome(), report.remarks.len()), (CheckOutcome::Pass, 1));
}

#[test]
fn devices_that_are_lost_and_answers_that_never_come_are_told_apart() {
    let report = smi(0, &smi_gpu(0, &[]), 2);
    assert_eq!(report.outcome(), CheckOutcome::Fail { gpus: vec!["GPU-1".to_owned()], advice: Advice::Reboot });
    let handle = "Unable to determine the device handle for GPU 0000:11:00.0: Unknown Error\n";
    let report = smi(15, &(smi_gpu(0, &[]) + handle), 2);
    assert_eq!(report.outcome(), CheckOutcome::Fail { gpus: vec!["GPU-1".to_owned()], advice: Advice::Reboot });
    let nameless = Expected { devices: vec![Device { pci: None, ..eight().devices[1].clone() }] };
    let report = read_smi(&Ended::Code(15), (smi_gpu(0, &[]) + handle).as_bytes(), &nameless);
    assert_eq!(report.outcome(), CheckOutcome::Fail { gpus: vec!["GPU-1".to_owned()], advice: Advice::Reboot });
    assert!(report.remarks[0].contains("0000:11:00.0"), "{report:?}");
    assert_eq!(smi(15, "", 0).outcome(), CheckOutcome::Fail { gpus: vec![], advice: Advice::Reboot });
    assert_eq!(faults(&smi(6, "No devices were found\n", 2)).len(), 2);
    assert_eq!(smi(0, "No devices were found\n", 0).outcome(), CheckOutcome::Inconclusive);
    assert_eq!(smi(8, "", 2).outcome(), CheckOutcome::Fail { gpus: vec![], advice: Advice::ContactSupport });
    assert_eq!(faults(&smi(14, "", 2))[0].action, Action::ResetGpu);
    for code in [9, 124, 137, 255, 3, 2] {
        assert_eq!(smi(code, "NVIDIA-SMI has failed", 2).outcome(), CheckOutcome::Inconclusive, "{code}");
    }
    for code in [4, 12, 127] {
        assert_eq!(smi(code, "", 2).outcome(), CheckOutcome::Infrastructure, "{code}");
    }
    assert_eq!(read_smi(&Ended::TimedOut, b"", &eight()).outcome(), CheckOutcome::Inconclusive);
}

#[test]
fn a_fault_of_the_node_is_no_fault_of_single_gpus() {
    let fault = |gpu: Option<&str>, action| Fault {
        gpu: gpu.map(str::to_owned),
        test: "x".to_owned(),
        error: None,
        action,
        text: "x".to_owned(),
    };
    let report = |faults| Report { by: Checker::DcgmDiag, verdict: Verdict::Fail { faults }, remarks: vec![] };
    let both = report(vec![fault(Some("GPU-1"), Action::ResetGpu), fault(None, Action::Diagnose)]);
    assert_eq!(both.outcome(), CheckOutcome::Fail { gpus: vec![], advice: Advice::ResetGpu });
    let thermal = report(vec![fault(Some("GPU-1"), Action::CheckThermals)]);
    let nobody = Advice::ContactSupport;
    let fail = CheckOutcome::Fail { gpus: vec!["GPU-1".to_owned()], advice: nobody };
    assert_eq!(thermal.outcome(), fail, "a reboot cools nothing");
}
