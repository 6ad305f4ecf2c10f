//! A `seectl` of one's own, which knows one more hook.

mod greeter;

fn main() -> std::process::ExitCode {
    see_cli::main(|| {
        let mut registries = see_cli::registries::standard()?;
        registries.hooks.add::<greeter::Greeter>()?;
        Ok(registries)
    })
}
