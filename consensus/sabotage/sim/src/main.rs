//! `simulate` on the core that can be told to do something wrong: one more word, `--sabotage NAME`.

fn main() -> std::process::ExitCode {
    consensus_sim_sabotaged::cli::main(std::env::args().skip(1))
}
