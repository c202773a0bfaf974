//! The devices of this machine by NVML, the library of the driver, told in the words of `nvidia-smi`.
//!
//! For machines that have the library and no `nvidia-smi`, as in slim containers. It is asked in a process of its own,
//! like `nvidia-smi`: a driver that hangs holds whoever is inside it, and only a process can be ended then. So the
//! same deadlines and parsers do for both, and what a device does not tell is `[N/A]` here as well.

use std::ffi::OsStr;
use std::fmt::Write;

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

/// Arguments of this program with which it stands in for `nvidia-smi`.
pub const STAND_IN: [&str; 2] = ["internal", "nvml"];
/// The exit status that says that there is no NVML; as of `nvidia-smi`.
pub const NO_LIBRARY: u8 = 12;

const LIBRARY: &str = "libnvidia-ml.so.1";

/// What `nvidia-smi` with these arguments would print, and its exit status. Understood are `-L`, and `--query-gpu=…` with
/// `--format=csv,noheader,nounits`.
pub fn answer(args: &[&str]) -> (String, u8) {
    let fields = args.iter().find_map(|arg| arg.strip_prefix("--query-gpu="));
    let fields: Vec<Field> = match fields.map(|names| names.split(',').map(Field::named).collect()) {
        Some(Ok(fields)) => fields,
        Some(Err(name)) => return (format!("Field \"{name}\" is not a valid field to query.\n"), 2),
        None if args == ["-L"] => Vec::new(),
        None => return ("`-L` or `--query-gpu=…` is asked here\n".to_owned(), 2),
    };
    match Nvml::builder().lib_path(OsStr::new(LIBRARY)).init() {
        Ok(nvml) => tell(&nvml, &fields),
        Err(error) => (format!("NVML: {error}\n"), status(&error)),
    }
}

#[derive(Clone, Copy)]
enum Field {
    Index,
    Uuid,
    Name,
    MigMode,
    MemoryTotal,
    MemoryUsed,
    Use,
    Power,
    Temperature,
}

impl Field {
    fn named(name: &str) -> Result<Field, String> {
        Ok(match name {
            "index" => Field::Index,
            "uuid" => Field::Uuid,
            "name" => Field::Name,
            "mig.mode.current" => Field::MigMode,
            "memory.total" => Field::MemoryTotal,
            "memory.used" => Field::MemoryUsed,
            "utilization.gpu" => Field::Use,
            "power.draw" => Field::Power,
            "temperature.gpu" => Field::Temperature,
            other => return Err(other.to_owned()),
        })
    }

    fn of(self, device: &Device<'_>, index: u32) -> Result<String, NvmlError> {
        let mib = |bytes: u64| (bytes >> 20).to_string();
        Ok(match self {
            Field::Index => index.to_string(),
            Field::Uuid => device.uuid()?,
            Field::Name => device.name()?,
            Field::MigMode => if device.mig_mode()?.current == 1 { "Enabled" } else { "Disabled" }.to_owned(),
            Field::MemoryTotal => mib(device.memory_info()?.total),
            Field::MemoryUsed => mib(device.memory_info()?.used),
            Field::Use => device.utilization_rates()?.gpu.to_string(),
            Field::Power => format!("{:.2}", f64::from(device.power_usage()?) / 1000.0),
            Field::Temperature => device.temperature(TemperatureSensor::Gpu)?.to_string(),
        })
    }
}

fn tell(nvml: &Nvml, fields: &[Field]) -> (String, u8) {
    let (mut text, mut code) = (String::new(), 0);
    let count = match nvml.device_count() {
        Ok(count) => count,
        Err(error) => return (format!("NVML: {error}\n"), status(&error)),
    };
    for index in 0..count {
        let told = nvml.device_by_index(index).and_then(|device| match fields {
            [] => list(&device, index),
            fields => Ok(row(&device, index, fields)),
        });
        match told {
            Ok(told) => text += &told,
            Err(error) => {
                let _ = writeln!(text, "Unable to determine the device handle for GPU {index}: {error}");
                code = status(&error);
            }
        }
    }
    (text, code)
}

fn row(device: &Device<'_>, index: u32, fields: &[Field]) -> String {
    let told = |field: &Field| match field.of(device, index) {
        Ok(told) => told,
        Err(NvmlError::GpuLost) => "[GPU is lost]".to_owned(),
        Err(NvmlError::ResetRequired) => "[GPU requires reset]".to_owned(),
        Err(NvmlError::Unknown) => "[Unknown Error]".to_owned(),
        Err(_) => "[N/A]".to_owned(),
    };
    fields.iter().map(told).collect::<Vec<_>>().join(", ") + "\n"
}

fn list(device: &Device<'_>, index: u32) -> Result<String, NvmlError> {
    let mut text = format!("GPU {index}: {} (UUID: {})\n", device.name()?, device.uuid()?);
    for at in 0..device.mig_device_count().unwrap_or(0) {
        // The count is of places; most may be empty.
        let Ok(instance) = device.mig_device_by_index(at) else { continue };
        let (name, uuid) = (instance.name()?, instance.uuid()?);
        let profile = name.rsplit(' ').next().unwrap_or_default();
        let _ = writeln!(text, "  MIG {profile} Device {at}: (UUID: {uuid})");
    }
    Ok(text)
}

/// As `nvidia-smi` ends for it.
fn status(error: &NvmlError) -> u8 {
    match error {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => NO_LIBRARY,
        NvmlError::NotSupported => 3,
        NvmlError::NoPermission => 4,
        NvmlError::InsufficientPower => 8,
        NvmlError::DriverNotLoaded => 9,
        NvmlError::IrqIssue => 10,
        NvmlError::CorruptedInfoROM => 14,
        NvmlError::GpuLost => 15,
        _ => 6,
    }
}
