//! NVIDIA cards: what the system says of them, and in a build that can use them, what the driver and CUDA's libraries
//! say.

use std::path::Path;

#[cfg(feature = "cuda")]
use serde_json::Value;
use serde_json::json;

use super::check::Check;
use crate::words::significant;

/// Longest file of the driver or of the bus.
const BYTES: u64 = 1 << 14;
/// NVIDIA's number on the bus.
const NVIDIA: &str = "0x10de";
/// The class of devices that compute or draw.
const DISPLAY: &str = "0x03";

pub(super) fn checks() -> Vec<Check> {
    let system = System { root: Path::new("/").to_owned() };
    let mut checks = vec![system.driver()];
    checks.extend(system.buses());
    checks.extend(of_build(!system.devices().is_empty()));
    checks
}

/// Which driver of NVIDIA's is loaded, in its own words.
pub(crate) fn driver() -> Option<String> {
    let line = System { root: Path::new("/").to_owned() }.driver_line()?;
    Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A card on the bus.
#[derive(Debug, PartialEq)]
struct Bus {
    address: String,
    /// Gigatransfers a second of a lane, and lanes: now, and at most.
    now: Option<(f64, u32)>,
    most: Option<(f64, u32)>,
}

/// Where the kernel lists devices.
struct System {
    root: std::path::PathBuf,
}

impl System {
    fn read(&self, path: &str) -> Option<String> {
        let bytes = descant_files::read_bounded(&self.root.join(path), BYTES).ok()?;
        Some(String::from_utf8(bytes).ok()?.trim().to_owned())
    }

    /// The driver's own words.
    fn driver_line(&self) -> Option<String> {
        let version = self.read("proc/driver/nvidia/version")?;
        let line = version.lines().next()?.trim_start_matches("NVRM version:").trim().to_owned();
        Some(line)
    }

    fn driver(&self) -> Check {
        let line = self.driver_line();
        let facts = json!({"driver": line});
        if let Some(line) = line {
            return Check::ok("driver", line.split_whitespace().collect::<Vec<_>>().join(" "), facts);
        }
        let check = Check::note("driver", "NVIDIA's driver is not loaded", facts);
        check.or_note("to train on a card, install NVIDIA's driver; the CPU trains the tiny model")
    }

    fn devices(&self) -> Vec<Bus> {
        let folder = "sys/bus/pci/devices";
        let mut names = descant_files::list(&self.root.join(folder)).unwrap_or_default();
        names.sort();
        let of = |name: &String| {
            let read = |file: &str| self.read(&format!("{folder}/{name}/{file}"));
            let is_card = read("vendor")? == NVIDIA && read("class")?.starts_with(DISPLAY);
            let link = |which: &str| {
                let speed = read(&format!("{which}_link_speed"))?;
                let lanes = read(&format!("{which}_link_width"))?.parse().ok()?;
                Some((speed.split_whitespace().next()?.parse().ok()?, lanes))
            };
            is_card.then(|| Bus { address: name.clone(), now: link("current"), most: link("max") })
        };
        names.iter().filter_map(of).collect()
    }

    fn buses(&self) -> Vec<Check> {
        self.devices().iter().map(Bus::check).collect()
    }
}

impl Bus {
    fn check(&self) -> Check {
        let bytes = |link: Option<(f64, u32)>| link.map(|(giga, lanes)| rate(giga, lanes));
        let facts = json!({
            "address": self.address,
            "bytes_per_second_at_most": bytes(self.most),
            "bytes_per_second_now": bytes(self.now),
        });
        let shown = |link: Option<(f64, u32)>| {
            link.map_or_else(
                || "an unknown rate".to_owned(),
                |(giga, lanes)| {
                    format!("{giga} GT/s x {lanes}, {} GB/s", significant(rate(giga, lanes) / 1e9))
                },
            )
        };
        let text = format!("{}: {}", self.address, shown(self.most.or(self.now)));
        let check = Check::ok("bus", text, facts);
        let lanes = |link: Option<(f64, u32)>| link.map(|(_, lanes)| lanes);
        match (lanes(self.now), lanes(self.most)) {
            // An idle card runs its bus slower, but always with all its lanes.
            (Some(now), Some(most)) if now < most => check.or_note(format!(
                "only {now} of {most} lanes are connected, which slows down streamed weights in proportion; try another slot"
            )),
            _ => check,
        }
    }
}

/// Bytes a second: PCIe since 3.0 sends 128 of 130 bits, before 8 of 10.
fn rate(giga: f64, lanes: u32) -> f64 {
    let share = if giga < 8.0 { 0.8 } else { 128.0 / 130.0 };
    giga * 1e9 * share / 8.0 * f64::from(lanes)
}

#[cfg(not(feature = "cuda"))]
fn of_build(has_card: bool) -> Vec<Check> {
    let facts = json!({"cuda": false});
    if has_card {
        let check = Check::note("cards", "there is a card, and this build has no CUDA", facts);
        return vec![check.or_note("`cargo xtask --cuda doctor`, and `cargo xtask --cuda train`, use it")];
    }
    let check = Check::note("cards", "no NVIDIA card; this build has no CUDA", facts);
    vec![check.or_note("`descant plan --recipe multilingual-thinking` says which card a run needs")]
}

#[cfg(feature = "cuda")]
fn of_build(_has_card: bool) -> Vec<Check> {
    use descant_kernels::cuda::{error::require, library::Library};
    let mut checks = Vec::new();
    let mut has_driver = false;
    for (name, library) in [
        ("libcuda", Library::Driver),
        ("nvrtc", Library::Nvrtc),
        ("cublaslt", Library::CublasLt),
        ("nccl", Library::Nccl),
    ] {
        let facts = |found: bool| json!({"library": library.to_string(), "found": found});
        checks.push(match require(library) {
            Ok(()) => {
                has_driver |= library == Library::Driver;
                Check::ok(name, format!("{library} is found{}", version(library)), facts(true))
            }
            Err(error) => {
                let check = Check::note(name, error.to_string(), facts(false));
                let todo = error.hint().unwrap_or_default();
                // Without a driver there is no card to be used, and the CPU trains without the libraries.
                // One card does without NCCL.
                let needed = has_driver && library != Library::Nccl;
                if needed { check.bad(todo) } else { check.or_note(todo) }
            }
        });
    }
    if has_driver {
        checks.extend(opened());
    }
    checks
}

#[cfg(feature = "cuda")]
fn version(library: descant_kernels::cuda::library::Library) -> String {
    use descant_kernels::cuda::{library::Library, nvrtc};
    match (library, nvrtc::version()) {
        (Library::Nvrtc, Ok((major, minor))) => format!(", version {major}.{minor}"),
        (Library::Nccl, _) => descant_kernels::cuda::nccl::version()
            .map_or_else(|_| String::new(), |v| format!(", version {v}")),
        _ => String::new(),
    }
}

/// Every card that the driver opens.
#[cfg(feature = "cuda")]
fn opened() -> Vec<Check> {
    use crate::words::size;
    use descant_kernels::cuda::Gpu;
    /// Most cards that a machine has.
    const MOST: usize = 64;
    let mut checks = Vec::new();
    for index in 0..MOST {
        let gpu = match Gpu::of(index) {
            Ok(gpu) => gpu,
            Err(error) if index == 0 => {
                let check = Check::note("cards", format!("no card can be opened: {error}"), Value::Null);
                return vec![check.bad(error.hint().unwrap_or("check the output of nvidia-smi"))];
            }
            Err(_) => break,
        };
        let capability = gpu.capability();
        let number = format!("{}.{}", capability.major, capability.minor);
        let (free, total) = gpu.memory().map_or((None, None), |(free, total)| (Some(free), Some(total)));
        let bus = descant_kernels::gauge::bus_rate(&burn::tensor::Device::cuda(index));
        let facts = json!({
            "index": index, "name": gpu.name(), "capability": number, "free_bytes": free, "total_bytes": total,
            "bus_bytes_per_second": bus, "kernels": gpu.kernels().map(descant_kernels::cuda::family::Row::words),
        });
        let bus =
            bus.map_or_else(String::new, |rate| format!(", bus {} GB/s measured", significant(rate / 1e9)));
        let shown = |bytes: Option<usize>| bytes.map_or_else(|| "?".to_owned(), |bytes| size(bytes as u64));
        let kernels = gpu.kernels().map_or_else(String::new, |row| format!(", {}", row.words()));
        let text = format!(
            "cuda:{index}, {}, capability {number}, {} multiprocessors, {} of {} free{bus}{kernels}",
            gpu.name(),
            gpu.multiprocessors(),
            shown(free),
            shown(total)
        );
        let check = Check::ok("card", text, facts);
        checks.push(if gpu.kernels().is_none() {
            check.bad("cards before Ampere (capability 8.0) are not supported")
        } else {
            check
        });
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::check::State;

    fn system(link: Option<[&str; 4]>) -> (tempfile::TempDir, System) {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            descant_files::create_dirs(path.parent().unwrap()).unwrap();
            descant_files::write_atomic(&path, text.as_bytes()).unwrap();
        };
        let card = "sys/bus/pci/devices/0000:01:00.0";
        write("sys/bus/pci/devices/0000:00:1f.0/vendor", "0x8086\n");
        write("sys/bus/pci/devices/0000:00:1f.0/class", "0x060100\n");
        if let Some(values) = link {
            write(&format!("{card}/vendor"), "0x10de\n");
            write(&format!("{card}/class"), "0x030200\n");
            let names = ["current_link_speed", "current_link_width", "max_link_speed", "max_link_width"];
            for (name, value) in names.iter().zip(values) {
                write(&format!("{card}/{name}"), value);
            }
            write(
                "proc/driver/nvidia/version",
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.1  Tue\nGCC version: 12\n",
            );
        }
        let root = dir.path().to_owned();
        (dir, System { root })
    }

    #[test]
    fn a_card_on_the_bus_is_found_with_its_rate() {
        let (_dir, system) = system(Some(["2.5 GT/s PCIe", "16", "16.0 GT/s PCIe", "16"]));
        let [check] = system.buses().try_into().unwrap();
        assert_eq!(check.state, State::Ok, "idle cards are slow: {check:?}");
        assert!(check.text.contains("16 GT/s x 16, 31.5 GB/s"), "{}", check.text);
        assert_eq!(system.driver().text, "NVIDIA UNIX x86_64 Kernel Module 580.1 Tue");
    }

    #[test]
    fn missing_lanes_and_a_missing_driver_are_said() {
        let (_dir, system) = self::system(Some(["16.0 GT/s PCIe", "4", "16.0 GT/s PCIe", "16"]));
        let [check] = system.buses().try_into().unwrap();
        assert!(check.todo.unwrap().contains("only 4 of 16 lanes"));
        let (_dir, none) = self::system(None);
        assert!(none.devices().is_empty());
        assert_eq!(none.driver().state, State::Note);
        assert!(none.driver().todo.unwrap().contains("install NVIDIA's driver"));
    }

    #[test]
    fn rates_are_those_of_the_standard() {
        assert!((rate(16.0, 16) / 1e9 - 31.5).abs() < 0.1 && (rate(2.5, 1) / 1e9 - 0.25).abs() < 1e-9);
    }
}
