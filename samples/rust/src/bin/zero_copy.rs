//! zero_copy.rs -- one large array in shared memory, read by many tasks where it lies.
use libray::Tensor;

/// The numbers are not copied: the slice is a view of the object store.
#[libray::remote]
fn sum(numbers: &[f64], from: usize, to: usize) -> f64 {
    numbers[from..to].iter().sum()
}

/// With its shape, as an array of the crate ndarray.
#[libray::remote]
fn column_sums(matrix: Tensor<f64>) -> Vec<f64> {
    matrix
        .view()
        .sum_axis(ndarray::Axis(0))
        .iter()
        .copied()
        .collect()
}

fn main() -> libray::Result<()> {
    let _ray = libray::init()?;
    let (rows, columns) = (1000, 1000);

    // 8 MB, written straight into shared memory.
    let matrix = libray::put_with(&[rows, columns], |out: &mut [f64]| {
        for (i, x) in out.iter_mut().enumerate() {
            *x = (i % columns) as f64;
        }
    })?;

    let n = rows * columns;
    let parts: Vec<_> = (0..4)
        .map(|i| sum::remote(&matrix, i * n / 4, (i + 1) * n / 4))
        .collect::<Result<_, _>>()?;
    println!(
        "the sum is {}",
        libray::get_all(&parts)?.iter().sum::<f64>()
    );

    let sums = column_sums::remote(&matrix)?.get()?;
    println!("the last column's is {}", sums[columns - 1]);

    let here = matrix.get()?; // a view too
    println!("the first row ends with {}", here[columns - 1]);
    Ok(())
}
