//! `descant score`: the log probability of every token of given sequences.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use descant_kernels::Keep;
use descant_train::memory::Asking;
use descant_train::score;
use serde::Deserialize;

use super::load;
use super::room::place_for_asking;
use crate::cli::Score;
use crate::failure::Exit;
use crate::talk::Talk;

/// Longest line of the input.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// A line of the input. Further keys are the caller's own and are let through.
#[derive(Deserialize)]
struct Line {
    ids: Vec<u32>,
    labels: Option<Vec<i64>>,
}

/// Scores line by line; the answer to each comes before the next is read.
pub(crate) fn run(args: &Score, model: &Path, talk: Talk) -> Result<Exit> {
    load::check_dir(model)?;
    let device = load::said_device(&args.model.device.name, talk)?;
    let mut input = open(&args.input)?;
    // Nothing is asked, and sequences are scored one at a time. Those of a pipe are not known before the model is loaded;
    // one that would break the limit is an error then.
    let scored = longest(&args.input)?;
    let rows = Asking { batch: 1, tokens: 1, scored };
    let limit = args.model.memory.bytes();
    let (placement, _) = place_for_asking(&device, limit, &load::config(model)?, rows, 1)?;
    let model = load::model(model, &device.device, placement, (limit, Keep::Auto))?;
    talk.detail(format_args!("weights: {}", model.formats()));
    let overlay = load::overlay(args.model.adapter.as_deref(), &model)?;
    for number in 1_u64.. {
        let Some(line) = read_line(&mut input).with_context(|| format!("line {number}"))? else { break };
        if line.trim_ascii().is_empty() {
            continue;
        }
        let scored = serde_json::from_slice::<Line>(&line).map_err(anyhow::Error::from);
        let scored = scored.and_then(|line| Ok(score(&model, &*overlay, &line.ids, line.labels.as_deref())?));
        let scored = scored.with_context(|| format!("{}, line {number}", args.input.display()))?;
        model.workspace().check_limit(&device.device)?;
        if args.json {
            talk.data(serde_json::to_string(&scored)?)?;
        } else {
            let loss = scored.loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.6}"));
            let perplexity = scored.loss.map_or_else(|| "-".to_owned(), |loss| format!("{:.4}", loss.exp()));
            talk.data(format_args!("{number}  loss {loss}  perplexity {perplexity}"))?;
        }
    }
    Ok(Exit::Success)
}

/// Tokens of a file's longest sequence; 0 for what is not a file, which is read once. What a line that cannot be read says
/// does not count: its turn comes.
fn longest(path: &Path) -> Result<u64> {
    if !path.is_file() {
        return Ok(0);
    }
    let (mut input, mut longest) = (open(path)?, 0);
    while let Ok(Some(line)) = read_line(&mut input) {
        longest = longest.max(serde_json::from_slice::<Line>(&line).map_or(0, |line| line.ids.len()));
    }
    Ok(longest as u64)
}

fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    Ok(Box::new(BufReader::new(file)))
}

/// The next line with its end, `None` after the last.
fn read_line(input: &mut dyn BufRead) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    input.take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line)?;
    if line.len() as u64 > MAX_LINE_BYTES {
        return Err(anyhow!("longer than {MAX_LINE_BYTES} bytes"));
    }
    Ok((!line.is_empty()).then_some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_they_end() {
        let mut input: &[u8] = b"a\n\nb";
        let mut next = || read_line(&mut input).unwrap();
        assert_eq!(next().unwrap(), b"a\n");
        assert_eq!(next().unwrap(), b"\n");
        assert_eq!(next().unwrap(), b"b");
        assert_eq!(next(), None);
    }

    #[test]
    fn the_longest_sequence_of_a_file_is_known_before_it_is_scored() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let rows = "{\"ids\": [1]}\n\nnot a row\n{\"ids\": [1, 2, 3]}\n{\"ids\": [4, 5]}";
        descant_files::write_atomic(file.path(), rows.as_bytes()).unwrap();
        assert_eq!(longest(file.path()).unwrap(), 3);
        assert_eq!(longest(Path::new("-")).unwrap(), 0);
    }

    #[test]
    fn a_line_beyond_the_limit_is_refused() {
        let long = vec![b'1'; MAX_LINE_BYTES as usize + 1];
        assert!(read_line(&mut long.as_slice()).is_err());
        assert_eq!(read_line(&mut &long[1..]).unwrap().unwrap().len() as u64, MAX_LINE_BYTES);
    }
}
