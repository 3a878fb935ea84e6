//! The exit status, as every `--help` lists it; `failure.rs` has the same numbers as a type.

pub(super) const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  done, and the result is negative: does not fit, below a limit, bad rows, proof failed
  2  error: arguments, settings, files, or a bug
  3  the training diverged: the loss or a gradient is not finite
  4  not enough device memory
  130, 143  stopped by SIGINT or SIGTERM; the same command resumes from the last checkpoint";
