use std::{collections::BTreeMap, sync::Arc};

use super::{Pps, Sps, nal};

/// The latest parameter set for each id.
#[derive(Clone, Debug, Default)]
pub(crate) struct ParameterSets {
    sps: BTreeMap<u8, Stored<Sps>>,
    pps: BTreeMap<u8, Stored<Pps>>,
}

#[derive(Clone, Debug)]
struct Stored<T> {
    unit: Arc<[u8]>,
    parsed: T,
}

/// The largest parameter set that a sample description can hold.
const LARGEST: usize = u16::MAX as usize;

impl ParameterSets {
    /// Stores a sequence or picture parameter set under its id. Returns whether it is new or
    /// differs from the set that it replaces.
    ///
    /// # Errors
    /// A message, if the set cannot be parsed or is larger than MP4 allows.
    pub fn insert(&mut self, unit: &[u8]) -> Result<bool, String> {
        let name = match nal::kind(unit) {
            nal::SPS => "sequence parameter set (SPS)",
            _ => "picture parameter set (PPS)",
        };
        if unit.len() > LARGEST {
            let bytes = unit.len();
            return Err(format!("a {name} has {bytes} bytes, MP4 takes up to {LARGEST}"));
        }
        let changed = if nal::kind(unit) == nal::SPS {
            Sps::parse(unit).map(|parsed| store(&mut self.sps, parsed.id, unit, parsed))
        } else {
            Pps::parse(unit).map(|parsed| store(&mut self.pps, parsed.id, unit, parsed))
        };
        changed.ok_or_else(|| format!("a {name} cannot be read"))
    }

    /// The parameter sets of a picture that refers to this picture parameter set.
    pub fn of_picture(&self, pps: u8) -> Option<(&Sps, &Pps)> {
        let pps = &self.pps.get(&pps)?.parsed;
        Some((&self.sps.get(&pps.sps)?.parsed, pps))
    }

    /// The id of the sequence parameter set, if there is exactly one.
    pub fn only_sps(&self) -> Option<u8> {
        self.sps.keys().next().copied().filter(|_| self.sps.len() == 1)
    }

    /// The sequence parameter sets; the set with the id `first` comes first.
    pub fn sps(&self, first: u8) -> impl Iterator<Item = &Arc<[u8]>> {
        let front = self.sps.get(&first).into_iter();
        let others = self.sps.iter().filter(move |(id, _)| **id != first).map(|(_, set)| set);
        front.chain(others).map(|set| &set.unit)
    }

    /// The picture parameter sets.
    pub fn pps(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.pps.values().map(|set| &set.unit)
    }
}

fn store<T>(sets: &mut BTreeMap<u8, Stored<T>>, id: u8, unit: &[u8], parsed: T) -> bool {
    if sets.get(&id).is_some_and(|set| *set.unit == *unit) {
        return false;
    }
    sets.insert(id, Stored { unit: unit.into(), parsed });
    true
}
