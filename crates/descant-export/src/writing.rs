//! Files of an export as they grow, with who watches, and their end.

use descant_files::Growing;

use crate::error::{Error, Result};
use crate::job::{Progress, Watch};
use crate::merge::Merger;
use crate::plan::{OutTensor, Type};
use crate::report::Report;
use crate::target::{REPORT_FILE, Target};

/// Says how far it is; whoever hears may stop it.
pub(crate) fn tell(watch: &mut Watch<'_>, progress: Progress) -> Result<()> {
    if watch(progress).is_break() { Err(Error::Stopped) } else { Ok(()) }
}

/// Writes the account, and gives everything its name.
pub(crate) fn finished(mut target: Target, report: Report) -> Result<Report> {
    let name = target.beside(REPORT_FILE);
    target.write(&name, report.to_json().as_bytes())?;
    target.commit()?;
    Ok(report)
}

/// GGML's number of a type.
pub(crate) fn ggml_type(kind: Type) -> u32 {
    match kind {
        Type::Plain(safetensors::Dtype::F32) => 0,
        Type::Plain(safetensors::Dtype::F16) => 1,
        Type::Plain(_) => 30,
        Type::GgmlMxfp4 => 39,
    }
}

/// A file that grows, and who watches.
pub(crate) struct Writing<'a, 'w> {
    pub(crate) file: Growing,
    pub(crate) bytes: u64,
    pub(crate) done: &'a mut u64,
    pub(crate) watch: &'a mut Watch<'w>,
}

impl Writing<'_, '_> {
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.append(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Writes bytes that were planned, and says so.
    pub(crate) fn tell(&mut self, bytes: &[u8]) -> Result<()> {
        self.append(bytes)?;
        *self.done += bytes.len() as u64;
        tell(self.watch, Progress::Written(*self.done))
    }

    /// Writes a tensor, and sees that it has as many bytes as the header says.
    pub(crate) fn tensor(&mut self, merger: &mut Merger, tensor: &OutTensor) -> Result<()> {
        let before = self.bytes;
        merger.produce(tensor, &mut |bytes| self.tell(bytes))?;
        assert_eq!(self.bytes - before, tensor.bytes(), "bytes of {}", tensor.name);
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<u64> {
        self.file.finish()?;
        Ok(self.bytes)
    }
}
