//! Lists as Slurm writes them: hosts such as `node[01-03,7],login`, and tasks a node such as `4(x2),3`.

/// The first host of a list.
pub(crate) fn first_host(list: &str) -> Option<String> {
    let end = list.find(['[', ',']).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    let Some(inside) = rest.strip_prefix('[') else { return some(name) };
    // Of `[01-03,7]` the number as it is written, zeros in front included; what comes behind belongs to every name.
    let (numbers, behind) = inside.split_once(']')?;
    let number = numbers.split([',', '-']).next()?;
    let behind = behind.split(',').next().unwrap_or_default();
    if behind.contains('[') {
        return None;
    }
    some(&format!("{name}{number}{behind}"))
}

fn some(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

/// The tasks on the node of this index.
pub(crate) fn tasks_on(list: &str, node: usize) -> Option<usize> {
    let mut passed = 0_usize;
    for part in list.split(',') {
        let (tasks, nodes) = match part.split_once("(x") {
            Some((tasks, nodes)) => (tasks, nodes.strip_suffix(')')?.parse::<usize>().ok()?),
            None => (part, 1),
        };
        passed = passed.checked_add(nodes)?;
        if node < passed {
            return tasks.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_host_is_found_in_every_form() {
        for (list, first) in [
            ("gpu1", Some("gpu1")),
            ("gpu1,gpu2", Some("gpu1")),
            ("gpu[1-4]", Some("gpu1")),
            ("gpu[007,009-011],x", Some("gpu007")),
            ("r[1-2].cluster.org,r9", Some("r1.cluster.org")),
            ("a-b,c", Some("a-b")),
            ("", None),
            ("gpu[1-2", None),
            ("rack[1-2]node[3-4]", None),
        ] {
            assert_eq!(first_host(list).as_deref(), first, "{list}");
        }
    }

    #[test]
    fn tasks_of_a_node_are_counted_through_repetitions() {
        for (node, tasks) in [(0, Some(4)), (1, Some(4)), (2, Some(3)), (3, Some(1)), (4, None)] {
            assert_eq!(tasks_on("4(x2),3,1", node), tasks, "{node}");
        }
        assert_eq!(tasks_on("8", 0), Some(8));
        for bad in ["", "x", "4(x", "4(x9999999999999999999999)"] {
            assert_eq!(tasks_on(bad, 0), None, "{bad}");
        }
    }
}
