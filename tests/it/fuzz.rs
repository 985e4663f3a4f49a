//! What `hack/fuzz` looks for, over its corpus and some thousands of inputs made of it.

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use quarterdeck_it::repository;

/// A small generator of numbers (xorshift): the same inputs each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % most.max(1) as u64).unwrap()
    }

    /// An input with some of its bytes changed, left out, doubled, or taken from another one.
    fn mutated(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        const TELLING: &[u8] = b":-{}[]\"'#&*!|>%@`,\n\t ~0<=^.x$;\\\0\xff";
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(input.len());
            match self.below(4) {
                _ if input.is_empty() => input.push(TELLING[self.below(TELLING.len())]),
                0 => input[at] = TELLING[self.below(TELLING.len())],
                1 => drop(input.remove(at)),
                2 => input.insert(at, TELLING[self.below(TELLING.len())]),
                _ => {
                    let other = &corpus[self.below(corpus.len())];
                    let from = self.below(other.len());
                    let part = &other[from..other.len().min(from + 1 + self.below(24))];
                    input.splice(at..at, part.iter().copied());
                }
            }
        }
        input
    }
}

#[test]
fn what_somebody_hands_in_is_read_or_refused() {
    for (name, target) in targets::TARGETS {
        let folder = repository().join("fuzz/corpus").join(name);
        let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let corpus: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
        assert!(corpus.len() >= 5, "{name} has no corpus");
        corpus.iter().for_each(|input| target(input));
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        for _ in 0..2000 {
            let input = numbers.mutated(&corpus);
            let shown = String::from_utf8_lossy(&input).into_owned();
            let ran = std::panic::catch_unwind(|| target(&input));
            assert!(ran.is_ok(), "{name} breaks with {shown:?}");
        }
    }
}
