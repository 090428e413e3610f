//! Man pages and shell completions, made from the command line's own description, so that they can't say anything else.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Command;
use clap_complete::Shell;

/// Writes a page for the program and one for each of its commands into a folder, which is made if it is missing.
/// Returns what was written.
///
/// # Errors
/// When the folder can't be written.
pub fn write_man_pages(command: Command, folder: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)?;
    let mut written: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    written.retain(|path| path.extension().is_some_and(|extension| extension == "1"));
    written.sort();
    Ok(written)
}

/// Writes the page of the program itself, as `man -l -` reads it.
///
/// # Errors
/// When `to` takes no more.
pub fn write_man_page(command: Command, to: &mut dyn Write) -> io::Result<()> {
    clap_mangen::Man::new(command).render(to)
}

/// Writes the completions of a shell.
pub fn write_completions(mut command: Command, shell: Shell, to: &mut dyn Write) {
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, to);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::{Arg, CommandFactory, Parser, Subcommand};

    use super::*;

    #[derive(Parser)]
    #[command(name = "ringmaster")]
    struct Line {
        #[command(subcommand)]
        _command: Task,
    }

    #[derive(Subcommand)]
    enum Task {
        /// Adds an agent.
        Add { _name: String },
    }

    #[test]
    fn each_command_has_its_page() {
        let folder = tempfile::tempdir().unwrap();
        let written = write_man_pages(Line::command(), &folder.path().join("man1")).unwrap();
        let names: Vec<_> = written.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["ringmaster-add.1", "ringmaster.1"]);
        assert!(fs::read_to_string(&written[0]).unwrap().contains("Adds an agent"));
    }

    #[test]
    fn every_shell_has_completions_of_every_option() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            let command = Line::command().arg(Arg::new("cores").long("cores"));
            write_completions(command, shell, &mut text);
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("cores") && text.contains("ringmaster"), "{shell}: {text}");
        }
    }
}
