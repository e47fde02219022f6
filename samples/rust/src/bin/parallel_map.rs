//! parallel_map.rs -- the primes below two million, counted in pieces that run beside each other.

#[libray::remote]
fn primes_in(from: u64, to: u64) -> usize {
    let is_prime = |n: u64| n > 1 && (2..).take_while(|d| d * d <= n).all(|d| n % d != 0);
    (from..to).filter(|n| is_prime(*n)).count()
}

fn main() -> libray::Result<()> {
    let _ray = libray::init()?;
    let step = 100_000;
    let pieces: Vec<_> = (0..20)
        .map(|i| primes_in::remote(i * step, (i + 1) * step))
        .collect::<Result<_, _>>()?;

    // Whatever is ready first.
    let (first, rest) = libray::wait(pieces, 1, None)?;
    println!("one piece is done, {} to go", rest.len());

    let total: usize = libray::get_all(&first)?
        .iter()
        .chain(&libray::get_all(&rest)?)
        .sum();
    println!("{total} primes");
    Ok(())
}
