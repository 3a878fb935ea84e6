//! `descant completions` and `descant man`: what a shell and a manual need, made from the arguments themselves.

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};
use clap_complete::generate;
use clap_mangen::Man;

use crate::cli::{Cli, Completions, ManPages};
use crate::failure::Exit;
use crate::talk::Talk;

/// Prints the completions of a shell.
pub(super) fn completions(args: &Completions, talk: Talk) -> Result<Exit> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "descant", &mut script);
    talk.data(String::from_utf8(script).context("clap writes text")?.trim_end())?;
    Ok(Exit::Success)
}

/// Writes a page for the program and one for each command.
pub(super) fn man(args: &ManPages, talk: Talk) -> Result<Exit> {
    let mut command = Cli::command();
    command.build();
    let mut pages = Vec::new();
    collect(&command, &mut pages);
    descant_files::create_dirs(&args.out)?;
    for (name, page) in &pages {
        let path = args.out.join(format!("{name}.1"));
        descant_files::write_atomic(&path, page)?;
    }
    talk.item("man", format_args!("{} pages in {}", pages.len(), args.out.display()));
    Ok(Exit::Success)
}

/// The pages of a command and of those below it, each under its full name, as `descant-data-preview`.
fn collect(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) {
    command.get_subcommands().for_each(|inner| collect(inner, pages));
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page).expect("memory takes all bytes");
    pages.push((command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned(), page));
}
