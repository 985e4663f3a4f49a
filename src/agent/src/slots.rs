//! Which backend serves which slot.
//!
//! A connection's client hashes to a slot, a slot leads to a backend. The table is a function of the backends alone,
//! so that every gateway sends the same client to the same backend, also in the middle of a connection that another
//! gateway began; and a backend that comes or goes moves few slots but its own. (The way of Google's Maglev, with a
//! table of a power of two and odd steps.)

/// Slots for so many backends: enough that their shares differ little, few enough to be loaded fast.
#[must_use]
pub fn slots_for(backends: usize, per_backend: usize) -> u32 {
    let wanted = (backends.max(1) * per_backend).next_power_of_two();
    u32::try_from(wanted.clamp(32, 8192)).expect("8192 fits")
}

/// The backend of each slot, as an index into `backends`; empty without backends. What is given must be unique; its
/// order changes the indices only.
#[must_use]
pub fn table(backends: &[&str], slots: u32) -> Vec<usize> {
    assert!(slots.is_power_of_two(), "odd steps reach every slot of a power of two only");
    if backends.is_empty() {
        return Vec::new();
    }
    // By name, so that ties fall the same way whatever the order.
    let mut order: Vec<usize> = (0..backends.len()).collect();
    order.sort_unstable_by_key(|index| backends[*index]);
    let mask = u64::from(slots) - 1;
    let mut walks: Vec<(u64, u64)> = order
        .iter()
        .map(|index| {
            let hash = hash(backends[*index].as_bytes());
            (hash & mask, (hash >> 32) | 1)
        })
        .collect();
    let mut taken: Vec<Option<usize>> = vec![None; slots as usize];
    let mut left = slots;
    loop {
        for (walk, backend) in walks.iter_mut().zip(&order) {
            loop {
                let slot = usize::try_from(walk.0).expect("below the number of slots");
                walk.0 = walk.0.wrapping_add(walk.1) & mask;
                if taken[slot].is_none() {
                    taken[slot] = Some(*backend);
                    break;
                }
            }
            left -= 1;
            if left == 0 {
                return taken.into_iter().flatten().collect();
            }
        }
    }
}

/// A hash that is the same on every host and in every version.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    // Mixed once more: neighbouring addresses differ in few bits.
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (1..=count).map(|n| format!("10.0.0.{n}")).collect()
    }

    fn served(names: &[String], slots: u32) -> Vec<String> {
        let texts: Vec<&str> = names.iter().map(String::as_str).collect();
        table(&texts, slots).into_iter().map(|index| names[index].clone()).collect()
    }

    #[test]
    fn every_backend_has_its_share() {
        for count in [1, 2, 3, 20, 100] {
            let slots = slots_for(count, 16);
            let served = served(&names(count), slots);
            assert_eq!(served.len(), slots as usize);
            for name in names(count) {
                let share = served.iter().filter(|served| **served == name).count();
                let fair = slots as usize / count;
                assert!(share == fair || share == fair + 1, "{name} has {share} of {slots} among {count}");
            }
        }
    }

    #[test]
    fn one_backend_less_moves_few_other_slots() {
        let all = names(20);
        let before = served(&all, 512);
        let after = served(&all[1..], 512);
        let others = before.iter().zip(&after).filter(|(old, new)| **old != all[0] && old != new).count();
        assert!(others < 512 / 5, "{others} slots of backends that stay have moved");
    }

    #[test]
    fn the_order_does_not_matter() {
        let mut turned = names(7);
        let before = served(&turned, 128);
        turned.reverse();
        assert_eq!(served(&turned, 128), before);
    }

    #[test]
    fn the_hash_stays_what_it_is() {
        // Gateways of different versions have to agree.
        assert_eq!(hash(b""), 17_665_956_581_633_026_203);
        assert_eq!(hash(b"10.0.0.1"), hash(b"10.0.0.1"));
        assert_ne!(hash(b"10.0.0.1") >> 32, hash(b"10.0.0.2") >> 32);
        assert!(table(&[], 32).is_empty());
    }
}
