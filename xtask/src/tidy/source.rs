//! The source files of the workspace, parsed once for all rules.

use std::fs;
use std::path::Path;

use proc_macro2::TokenStream;

use crate::failure::{Failure, While};

/// One file of Rust.
pub(super) struct Source {
    /// Relative to the checkout, with `/` between the folders.
    pub(super) path: String,
    pub(super) tokens: TokenStream,
    pub(super) file: syn::File,
    /// For each `mod name;` of the file: whether the file that it stands for
    /// begins with documentation.
    pub(super) documented_modules: Vec<String>,
}

impl Source {
    /// Parses a file's text.
    pub(super) fn parse(path: &str, text: &str) -> Result<Self, Failure> {
        let tokens: TokenStream = text
            .parse()
            .doing(format_args!("{path} cannot be split into words"))?;
        let file = syn::parse_file(text).doing(format_args!("{path} cannot be read as Rust"))?;
        Ok(Self {
            path: path.to_owned(),
            tokens,
            file,
            documented_modules: Vec::new(),
        })
    }
}

/// Every file of Rust in the checkout, sorted by path.
pub(super) fn all(root: &Path) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    walk(root, root, &mut sources)?;
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(sources)
}

fn walk(root: &Path, folder: &Path, into: &mut Vec<Source>) -> Result<(), Failure> {
    let entries = fs::read_dir(folder).doing(format_args!("cannot list {}", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder {
            if name != "target" && !name.starts_with('.') {
                walk(root, &path, into)?;
            }
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text =
                fs::read_to_string(&path).doing(format_args!("cannot read {}", path.display()))?;
            let relative = path.strip_prefix(root).unwrap_or(&path);
            let mut source = Source::parse(&relative.to_string_lossy(), &text)?;
            source.documented_modules = documented_modules(&path, &source.file);
            into.push(source);
        }
    }
    Ok(())
}

/// The modules declared in `file` whose own file begins with `//!`.
fn documented_modules(path: &Path, file: &syn::File) -> Vec<String> {
    let folder = path.parent().unwrap_or(path);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let inside = match &*stem {
        "lib" | "main" | "mod" => folder.to_path_buf(),
        other => folder.join(other),
    };
    let declared = file.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) if module.content.is_none() => Some(module.ident.to_string()),
        _ => None,
    });
    declared
        .filter(|name| {
            [
                inside.join(format!("{name}.rs")),
                inside.join(name).join("mod.rs"),
            ]
            .iter()
            .filter_map(|path| fs::read_to_string(path).ok())
            .any(|text| text.trim_start().starts_with("//!"))
        })
        .collect()
}
