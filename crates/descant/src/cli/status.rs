//! The exit status, as every `--help` lists it; `failure.rs` has the same numbers as a type.

pub(super) const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  done, and the answer is no
  2  error: arguments, settings, files, or a bug
  3  the training diverged: the loss or a gradient is not finite
  4  the device's memory is too small
  130, 143  stopped by SIGINT or SIGTERM; the same command resumes from what was saved";
