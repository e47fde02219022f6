//! Finds libray, tells cargo how to link it, and has a C compiler compare `src/types.rs` and `src/functions.rs` with
//! `ray.h`.
//!
//! Where libray is looked for, first found first taken: `LIBRAY_PREFIX` (its `include/ray.h` and `lib/libray.so`),
//! the source tree that this crate lies in (built with `./dev build`; `LIBRAY_BUILD` names another build folder),
//! `pkg-config libray`.
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "src/types.rs"]
#[allow(non_camel_case_types, dead_code)]
mod types;

/// Where the header and the library are.
struct Found {
    include: PathBuf,
    lib: PathBuf,
}

fn in_prefix(prefix: &Path) -> Option<Found> {
    let include = prefix.join("include");
    let lib = ["lib", "lib64", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"].iter().map(|l| prefix.join(l));
    let lib = lib.into_iter().find(|l| l.join("libray.so").exists())?;
    include.join("ray.h").exists().then_some(Found { include, lib })
}

fn in_source_tree() -> Option<Found> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR").ok()?).join("../../..");
    let include = root.join("include");
    let build = env::var("LIBRAY_BUILD").map_or_else(|_| root.join("build/release"), PathBuf::from);
    let lib = build.join("lib");
    (include.join("ray.h").exists() && lib.join("libray.so").exists()).then_some(Found { include, lib })
}

fn by_pkg_config() -> Option<Found> {
    let ask = |what| {
        let done = Command::new("pkg-config").args([what, "libray"]).output().ok()?;
        let text = String::from_utf8(done.stdout).ok()?;
        done.status.success().then(|| PathBuf::from(text.trim()))
    };
    Some(Found { include: ask("--variable=includedir")?, lib: ask("--variable=libdir")? })
}

fn find() -> Found {
    if let Ok(prefix) = env::var("LIBRAY_PREFIX") {
        return in_prefix(Path::new(&prefix))
            .unwrap_or_else(|| panic!("LIBRAY_PREFIX is '{prefix}', which has no include/ray.h and lib/libray.so"));
    }
    in_source_tree().or_else(by_pkg_config).unwrap_or_else(|| {
        panic!(
            "libray was not found: set LIBRAY_PREFIX to where it is installed, or let 'pkg-config libray' know it \
             (PKG_CONFIG_PATH); in its source tree, './dev build' builds it"
        )
    })
}

/// `*const *mut ray_ref` -> `ray_ref * const *`.
fn c_type(rust: &str) -> String {
    let rust = rust.trim();
    if let Some(target) = rust.strip_prefix("*mut ") {
        return format!("{} *", c_type(target));
    }
    if let Some(target) = rust.strip_prefix("*const ") {
        return format!("{} const *", c_type(target));
    }
    match rust {
        "i32" => "int32_t",
        "u32" => "uint32_t",
        "i64" => "int64_t",
        "u64" => "uint64_t",
        "u8" => "uint8_t",
        "usize" => "size_t",
        "bool" => "bool",
        "c_int" => "int",
        "c_char" => "char",
        "c_void" => "void",
        other => other,
    }
    .to_owned()
}

/// `pub fn ray_f(a: A, b: B) -> C;` -> `C ray_f(A, B);`
fn c_prototype(declaration: &str) -> Option<String> {
    let (name, rest) = declaration.split_once("pub fn ")?.1.split_once('(')?;
    let (parameters, result) = rest.split_once(')')?;
    let result = result.trim().strip_prefix("->").map_or("void".to_owned(), c_type);
    let types: Vec<_> = parameters.split(',').filter_map(|p| p.split_once(": ")).map(|(_, t)| c_type(t)).collect();
    let types = if types.is_empty() { "void".to_owned() } else { types.join(", ") };
    Some(format!("{result} {name}({types});"))
}

/// A C file that compiles only if the declarations of this crate are those of the header.
fn probe() -> String {
    let mut out = String::from(
        "#include <ray.h>\ntypedef void (*ray_destroy_fn)(void *, void *);\n\
         #define SAME(what, value) _Static_assert((what) == (value), \"libray-sys has another \" #what)\n",
    );
    for (what, value) in types::LAYOUT {
        // A field that has another name in Rust because of a keyword has the header's here.
        let what = what.replace("r#", "");
        let _ = writeln!(out, "SAME({what}, {value});");
    }
    for (what, value) in types::NUMBERS {
        let _ = writeln!(out, "SAME({what}, {value}{});", if *value > i128::from(i64::MAX) { "u" } else { "" });
    }
    let prototypes: Vec<_> = include_str!("src/functions.rs").split(';').filter_map(c_prototype).collect();
    assert!(prototypes.len() > 100, "src/functions.rs could not be read");
    out += &prototypes.join("\n");
    let _ = writeln!(out, "\nconst uint64_t libray_sys_layout[] = {{");
    for (what, _) in types::LAYOUT {
        let _ = writeln!(out, "  {},", what.replace("r#", ""));
    }
    out + "};\n"
}

fn main() {
    for name in ["LIBRAY_PREFIX", "LIBRAY_BUILD", "PKG_CONFIG_PATH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/types.rs");
    println!("cargo:rerun-if-changed=src/functions.rs");
    if env::var_os("DOCS_RS").is_some() {
        return;
    }
    let found = find();
    let lib = found.lib.canonicalize().unwrap_or(found.lib);
    let include = found.include.canonicalize().unwrap_or(found.include);
    println!("cargo:rerun-if-changed={}", include.join("ray.h").display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let file = out.join("libray_sys_probe.c");
    fs::write(&file, probe()).expect("OUT_DIR can be written to");
    cc::Build::new().file(&file).include(&include).std("c11").warnings(false).compile("libray_sys_probe");

    // Programs that cargo runs find the library through a link in OUT_DIR: cargo puts the folders below its target
    // directory that are linked from on the loader's path, and no others.
    for name in ["libray.so", "libray.so.0"] {
        let link = out.join(name);
        let _ = fs::remove_file(&link);
        let _ = std::os::unix::fs::symlink(lib.join(name), &link);
    }
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=dylib=ray");
    println!("cargo:libdir={}", lib.display());
    println!("cargo:include={}", include.display());
    println!("cargo:rustc-env=LIBRAY_SYS_INCLUDE={}", include.display());
    println!("cargo:rustc-env=LIBRAY_SYS_LIBDIR={}", lib.display());
}
