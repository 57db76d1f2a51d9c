//! The workload of the golden checkpoints: prints `tick N`, ten times a second, and holds a memory
//! of which it prints the sum, so that a restore that lost a page is seen.
use std::io::Write;

fn main() {
    let mut memory = vec![0u8; 256 * 1024];
    let mut tick = 0u64;
    loop {
        tick += 1;
        let at = (tick as usize * 4099) % memory.len();
        memory[at] = memory[at].wrapping_add(tick as u8);
        let sum: u64 = memory.iter().map(|byte| u64::from(*byte)).sum();
        println!("tick {tick} sum {sum}");
        let _ = std::io::stdout().flush();
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
