//! Simulates power losses of redb 4.1.0. `redb-4-1-0 IMAGES SEED` prints the first disk
//! image in which redb has lost or damaged data, or that there is none.

mod power;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<u64>());
    let (Some(Ok(images)), Some(Ok(seed))) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: redb-4-1-0 IMAGES SEED");
        std::process::exit(2);
    };
    std::panic::set_hook(Box::new(|_| ()));
    let mut found = false;
    power::redb_only::try_redb(images, seed, |seed, what| {
        println!("lost: image {seed}: {what}");
        found = true;
        true
    });
    if !found {
        println!("nothing was lost in {images} images");
    }
}
