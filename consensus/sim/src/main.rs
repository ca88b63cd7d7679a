//! `simulate`: whole clusters from seeds; see `consensus_sim::cli`.

fn main() -> std::process::ExitCode {
    consensus_sim::cli::main(std::env::args().skip(1))
}
