//! What the assembler says a kernel uses, read from its log.

/// Of one kernel for one architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// Registers a thread.
    pub registers: u32,
    /// Static shared memory of a block, in bytes.
    pub shared: u32,
    /// Bytes a thread writes to and reads from memory because registers ran out.
    pub spilled: u32,
}

/// Name and resources of every kernel in a log made with `verbose`, by name.
pub fn parse(log: &str) -> Vec<(String, Resources)> {
    let mut found: Vec<(String, Resources)> = Vec::new();
    // Function properties are said of device functions too; only what follows an entry function counts.
    let mut current: Option<(String, Resources)> = None;
    for line in log.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            found.extend(current.take());
            current = rest.split('\'').next().map(|name| (name.to_owned(), Resources::default()));
        }
        let Some((_, resources)) = &mut current else { continue };
        if line.contains("spill stores") {
            resources.spilled = before(line, " bytes spill stores") + before(line, " bytes spill loads");
        }
        if line.contains("Used ") && line.contains(" registers") {
            resources.registers = before(line, " registers");
            resources.shared = before(line, " bytes smem");
        }
    }
    found.extend(current);
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// The number right before `what`; 0 where it is not said.
fn before(line: &str, what: &str) -> u32 {
    let number = line.split(what).next().filter(|head| head.len() < line.len());
    number.and_then(|head| head.rsplit([' ', ',']).next()).and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'second' for 'sm_80'
ptxas info    : Function properties for second
ptxas         .     160 bytes stack frame, 220 bytes spill stores, 324 bytes spill loads
ptxas info    : Used 72 registers, used 1 barriers, 160 bytes cumulative stack size, 640 bytes smem, 416 bytes cmem[0]
ptxas info    : Compile time = 466.762 ms
ptxas info    : Compiling entry function 'first' for 'sm_80'
ptxas info    : Function properties for first
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 48 registers, used 1 barriers, 400 bytes cmem[0]";

    #[test]
    fn a_log_is_read() {
        assert_eq!(
            parse(LOG),
            [
                ("first".to_owned(), Resources { registers: 48, shared: 0, spilled: 0 }),
                ("second".to_owned(), Resources { registers: 72, shared: 640, spilled: 544 }),
            ]
        );
        assert_eq!(parse("ptxas info    : 0 bytes gmem"), []);
    }
}
