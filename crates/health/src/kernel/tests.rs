use super::*;

fn xid(text: &str) -> XidLine {
    match read_log_line(text.as_bytes()) {
        Some(KernelEvent::Xid(xid)) => xid,
        other => panic!("{text}: {other:?}"),
    }
}

fn pci(text: &str) -> Pci {
    Pci::read(text).unwrap()
}

#[test]
fn lines_of_real_machines_are_read() {
    let line = xid("NVRM: Xid (PCI:0000:66:00): 32, pid=2280636, name=train.3, Channel ID 0000000d intr0 00040000");
    assert_eq!((line.code, line.pci, line.pid), (32, pci("0000:66:00"), Some(2_280_636)));
    assert_eq!(
        (line.process.as_deref(), line.message.as_str()),
        (Some("train.3"), "Channel ID 0000000d intr0 00040000")
    );

    let line = xid(
        "NVRM: Xid (PCI:0000:b5:00): 13, pid='<unknown>', name=<unknown>, Graphics SM Warp Exception on (GPC 1, TPC 3, SM 0): Out Of Range Address",
    );
    assert_eq!((line.code, line.pid, line.process.as_deref()), (13, None, None));
    assert_eq!(line.message, "Graphics SM Warp Exception on (GPC 1, TPC 3, SM 0): Out Of Range Address");

    let line = xid(
        "NVRM: Xid (PCI:0003:00:00): 74, pid='<unknown>', name=<unknown>, NVLink: fatal error detected on link 14(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)",
    );
    assert_eq!((line.code, line.pci, line.is_fatal_link), (74, pci("0003:00:00"), None));

    let line = xid("NVRM: Xid (PCI:0000:3f:00): 46");
    assert_eq!((line.code, line.message.as_str()), (46, ""));

    let line =
        xid("NVRM: Xid (PCI:0008:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)");
    assert_eq!((line.code, line.recovery), (154, Some(RecoveryAction::GpuReset)));

    let line = xid(
        "[Sun Feb 23 16:24:18 2025] NVRM: Xid (PCI:0000:9b:00): 119, pid=2024380, name=nvidia-smi, Timeout after 6s of waiting for RPC response from GPU4 GSP! Expected function 103 (GSP_RM_ALLOC) (0x2081 0x4).",
    );
    assert_eq!((line.code, line.process.as_deref()), (119, Some("nvidia-smi")));

    let line = xid(
        "NVRM: Xid (PCI:0000:10:1c): 63, pid=1896, Row Remapper: New row marked for remapping, reset gpu to activate.",
    );
    assert_eq!((line.code, line.pid, line.pci.device), (63, Some(1896), 0x1c));
    assert_eq!(line.message, "Row Remapper: New row marked for remapping, reset gpu to activate.");

    // Of old drivers, of a GPU that is cut, and of a link.
    let line = xid("NVRM: Xid (0000:01:00): 31, Ch 0000000b, engmask 00000120, intr 10000000");
    assert_eq!((line.code, line.message.as_str()), (31, "Ch 0000000b, engmask 00000120, intr 10000000"));
    let line =
        xid("NVRM: Xid (PCI:0000:01:00 GPU-I:05): 94, pid=7194, name=python3, Contained: SM (0x1). RST: No, D-RST: No");
    assert_eq!((line.code, line.instance), (94, Some(5)));
    let line = xid("NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 08 (0x004505c6 0x00000000)");
    assert_eq!((line.code, line.is_fatal_link), (149, Some(true)));
    assert_eq!(
        xid("NVRM: Xid (PCI:0000:04:00): 145, RLW_CTRL Nonfatal XC0 i0 Link 00 (0x3 Fatal)").is_fatal_link,
        Some(false)
    );
}

#[test]
fn addresses_have_names_and_gpus_fall_off_the_bus() {
    let uuid = "GPU-509665ad-b600-ac93-3616-d754b23d636d";
    assert_eq!(
        read_message(format!("NVRM: GPU at PCI:0000:9b:00: {uuid}").as_bytes()),
        Some(KernelEvent::Device { pci: pci("0000:9b:00"), uuid: uuid.to_owned() })
    );
    for fallen in [
        "NVRM: GPU 0000:a1:00.0: GPU has fallen off the bus.",
        "NVRM: GPU at 0000:a1:00.0 has fallen off the bus.",
        "NVRM: GPU at PCI:0000:a1:00: GPU has fallen off the bus.",
    ] {
        let expected = KernelEvent::FallenOffBus { pci: pci("0000:a1:00") };
        assert_eq!(read_message(fallen.as_bytes()), Some(expected), "{fallen}");
    }
    for other in [
        "NVRM: GPU 0000:91:00.0: GPU serial number is 1653723052734.",
        "NVRM: GPU at PCI:0000:9b:00: GPU-x",
        "NVRM: GPU ",
    ] {
        assert_eq!(read_message(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn switches_of_nvlink_are_heard() {
    let line = "[131453.740743] nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 30 LTSSM Fault Up";
    let Some(KernelEvent::Switch { code, is_fatal, .. }) = read_log_line(line.as_bytes()) else { panic!() };
    assert_eq!((code, is_fatal), (20034, true));
    let more = "nvidia-nvswitch2: SXid (PCI:0000:07:00.0): 20034, Severity 1 Engine instance 60 Sub-engine instance 00";
    assert_eq!(read_message(more.as_bytes()), None);
}

#[test]
fn garbage_is_told_and_never_acted_upon() {
    let garbled = |text: &[u8]| matches!(read_message(text), Some(KernelEvent::Garbled { .. }));
    assert!(garbled(b"NVRM: Xid (PCI:0000:01:00): 154 (            NVRM: Xid : 32, pid=1"));
    for text in [
        &b"NVRM: Xid"[..],
        b"NVRM: Xid (PCI:0000:01:00",
        b"NVRM: Xid (PCI:0000:01:00): ",
        b"NVRM: Xid (PCI:0000:01:00): 99999999999, x",
        b"NVRM: Xid (PCI:0000:01:00): 0, x",
        b"NVRM: Xid (PCI:zz): 79, x",
        b"NVRM: Xid (PCI:0000:01:00 GPU-I:xx): 94, x",
        b"NVRM: Xid : 32, pid=1",
    ] {
        assert!(garbled(text), "{}", String::from_utf8_lossy(text));
    }
    // What is no UTF-8 is replaced, and the rest is read.
    let line = read_message(b"NVRM: Xid (PCI:0000:3f:00): 43, pid=1, name=\xff\xfe\x1b[31m, Ch \xc3\x28");
    let Some(KernelEvent::Xid(line)) = line else { panic!() };
    assert_eq!((line.code, line.process.as_deref(), line.message.as_str()), (43, Some("[31m"), "Ch ("));
}

#[test]
fn nobody_can_forge_a_line_of_the_driver_by_a_name() {
    for text in [
        "usb 1-1: Product: NVRM: Xid (PCI:0000:66:00): 79, GPU has fallen off the bus.",
        "NVRM: Xid(evil)[77]: segfault at 0".trim_start_matches("NVRM: "),
        "audit: type=1400 comm=\"x\" name=\" kernel: NVRM: Xid (PCI:0000:66:00): 79, x\" and more words to it",
        "[evil(] NVRM: Xid (PCI:0000:66:00): 79",
        "EXT4-fs (sda1): mounted [1.2] NVRM: Xid (PCI:0000:66:00): 79",
        "[   12.3] usb 1-1: Product: a kernel: NVRM: Xid (PCI:0000:66:00): 79",
        "Feb 23 16:24:18 gpu-1 kernel: usb 1-1: Product: a kernel: NVRM: Xid (PCI:0000:66:00): 79",
    ] {
        assert_eq!(read_message(text.as_bytes()), None, "{text}");
        assert_eq!(read_log_line(text.as_bytes()), None, "{text}");
    }
    assert_eq!(read_log_line(b"usb 1-1: Product: a kernel: NVRM: Xid (PCI:0000:66:00): 79"), None);
    // Of a record nothing is taken away: its message is all that it is.
    assert_eq!(read_message(b"usb 1-1: Product: a kernel: NVRM: Xid (PCI:0000:66:00): 79"), None);
    assert_eq!(read_message(b"[  1.2] NVRM: Xid (PCI:0000:66:00): 79"), None);
    // While each way of writing the log down is understood.
    for before in [
        "",
        "<3>",
        "[  123.456789] ",
        "[Sun Feb 23 16:24:18 2025] ",
        "Feb 23 16:24:18 gpu-1 kernel: ",
        "2025-02-23T16:24:18+00:00 gpu-1 kernel: [  12.3] ",
    ] {
        assert_eq!(xid(&format!("{before}NVRM: Xid (PCI:0000:66:00): 79, x")).code, 79, "{before}");
    }
}
