//! Files that run, or tell an agent what to do, without anybody starting them (spec/files.md).
//!
//! The right to write into a tree is for its data. A hook, a shell's start-up file or a list of
//! tool servers in it is code of whoever comes by next, so it takes a tree that names it.

/// A name, or two of which the first is the folder, in lower case.
const NAMES: &[&str] = &[
    // shells and terminals
    ".bash_aliases",
    ".bash_login",
    ".bash_logout",
    ".bash_profile",
    ".bashrc",
    ".envrc",
    ".inputrc",
    ".kshrc",
    ".login",
    ".logout",
    ".pam_environment",
    ".profile",
    ".screenrc",
    ".tmux.conf",
    ".tcshrc",
    ".cshrc",
    ".xinitrc",
    ".xprofile",
    ".xsession",
    ".xsessionrc",
    ".zlogin",
    ".zlogout",
    ".zprofile",
    ".zshenv",
    ".zshrc",
    // version control
    ".gitattributes",
    ".gitconfig",
    ".gitmodules",
    ".hgrc",
    // editors and debuggers
    ".dir-locals.el",
    ".emacs",
    ".exrc",
    ".gdbinit",
    ".lldbinit",
    ".nvimrc",
    ".vimrc",
    "_vimrc",
    // language tools that load them where they find them
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    ".pnpmfile.cjs",
    ".pypirc",
    ".pythonrc.py",
    ".pythonstartup",
    ".pre-commit-config.yaml",
    "sitecustomize.py",
    "sitecustomize.pyc",
    "sitecustomize",
    "usercustomize.py",
    "usercustomize.pyc",
    "usercustomize",
    ".mise.toml",
    "mise.toml",
    ".irbrc",
    ".pryrc",
    ".rprofile",
    ".ghci",
    ".netrc",
    ".wgetrc",
    ".curlrc",
    // what steers agents
    ".cursorrules",
    ".clinerules",
    ".windsurfrules",
    ".mcp.json",
    "mcp.json",
    "agents.md",
    "claude.md",
    "claude.local.md",
    "copilot-instructions.md",
    "gemini.md",
    ".aider.conf.yml",
];

/// Folders of which everything is such a file, in lower case.
const FOLDERS: &[&str] = &[
    ".claude",
    ".codex",
    ".cursor",
    ".continue",
    ".devcontainer",
    ".emacs.d",
    ".gemini",
    ".git",
    ".githooks",
    ".gnupg",
    ".hg",
    ".husky",
    ".idea",
    ".ipython",
    ".kiro",
    ".roo",
    ".ssh",
    ".svn",
    ".vim",
    ".vscode",
    ".windsurf",
    ".zed",
    "autostart",
    "launchagents",
    "systemd",
];

/// A file ending that an interpreter runs at its start.
const ENDINGS: &[&str] = &[".desktop", ".pth"];

/// Folders in a folder of which everything is such a file, in lower case.
const INSIDE: &[(&str, &str)] = &[
    (".aws", "config"),
    (".config", "code"),
    (".config", "direnv"),
    (".config", "emacs"),
    (".config", "fish"),
    (".config", "gdb"),
    (".config", "mercurial"),
    (".config", "mise"),
    (".config", "vim"),
    (".config", "zed"),
    (".docker", "config.json"),
    (".gradle", "init.gradle"),
    (".kube", "config"),
    (".config", "git"),
    (".config", "nvim"),
    (".config", "environment.d"),
    (".github", "workflows"),
    (".github", "actions"),
    (".cargo", "config"),
    (".cargo", "config.toml"),
    (".local", "bin"),
    ("etc", "cron.d"),
    ("etc", "profile.d"),
];

/// Whether a path has a part that makes it such a file: one component after another, as they
/// stand below the tree that may be written. Case is folded, for file systems that do so, and
/// final dots and spaces do not count, for those that drop them.
#[must_use]
pub fn runs_by_itself<'a>(parts: impl IntoIterator<Item = &'a str>) -> bool {
    let mut before = String::new();
    for part in parts {
        let name = folded(part);
        let name = name.as_str();
        if NAMES.contains(&name)
            || FOLDERS.contains(&name)
            || ENDINGS.iter().any(|ending| name.ends_with(ending))
            || INSIDE.iter().any(|(outer, inner)| *outer == before && *inner == name)
        {
            return true;
        }
        name.clone_into(&mut before);
    }
    false
}

/// Whether a folder of this name makes some of what lies in it such a file, as `.github` does.
/// What lies in a folder comes along when it gets such a name, or loses it.
#[must_use]
pub fn makes_run(name: &str) -> bool {
    INSIDE.iter().any(|(outer, _)| *outer == folded(name))
}

fn folded(part: &str) -> String {
    let name = part.to_lowercase();
    let name = name.trim_end_matches(['.', ' ']).split(':').next().unwrap_or_default();
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str) -> bool {
        runs_by_itself(path.split('/'))
    }

    #[test]
    fn what_runs_by_itself_is_found_wherever_it_lies() {
        for path in [
            ".bashrc",
            "a/b/.zshrc",
            ".git/hooks/pre-commit",
            ".git",
            "sub/.git/config",
            ".mcp.json",
            "x/.vscode/tasks.json",
            ".github/workflows/ci.yml",
            "lib/evil.pth",
            ".config/fish/config.fish",
            ".cargo/config.toml",
            "CLAUDE.md",
        ] {
            assert!(found(path), "{path}");
        }
    }

    #[test]
    fn another_spelling_is_the_same_file() {
        for path in [".GIT/hooks/x", ".Git./x", ".git /x", ".git::$INDEX_ALLOCATION/x", ".BashRC"] {
            assert!(found(path), "{path}");
        }
    }

    #[test]
    fn a_folder_that_gives_a_meaning_to_what_is_in_it_is_known() {
        for (outer, inner) in INSIDE {
            assert!(makes_run(outer) && found(&format!("{outer}/{inner}")), "{outer}");
        }
        assert!(makes_run(".GitHub.") && !makes_run("github") && !makes_run("workflows"));
    }

    #[test]
    fn data_is_left_alone() {
        for path in [
            "",
            "a",
            "notes/first.txt",
            "git/hooks/x",
            "bashrc",
            ".gitignore",
            ".github/labels.yml",
            "config/fish/x",
            ".config/app/settings.json",
            "path",
            "a.pth.txt",
            ".env",
            "workflows/.github",
        ] {
            assert!(!found(path), "{path}");
        }
    }

    #[test]
    fn the_lists_are_in_the_form_that_is_compared() {
        let all = NAMES.iter().chain(FOLDERS).chain(ENDINGS).copied();
        for name in all.chain(INSIDE.iter().flat_map(|(a, b)| [*a, *b])) {
            assert_eq!(name, name.to_lowercase().trim_end_matches(['.', ' ']), "{name}");
        }
    }
}
