//! The program; all of it is in the library, which is empty on other systems.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    headwater_torture::main()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    eprintln!("headwater-torture is for Linux on x86-64 only");
    std::process::exit(2);
}
