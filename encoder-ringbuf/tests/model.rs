//! Random sequences of operations, compared with a simple model.
#![cfg(not(any(ring_loom, miri)))]
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeSet, VecDeque};

use encoder_ringbuf::{Next, ReadSlot, RingOptions, WriteSlot, ring};
use proptest::prelude::*;

/// One operation; an index picks among the slots that are held, modulo their number.
#[derive(Clone, Debug)]
enum Op {
    Reserve,
    ReserveOverOldest,
    Publish(usize),
    Abandon(usize),
    Next,
    Release(usize),
    /// Commits up to the commit cursor plus this minus two: also below the cursor and beyond the
    /// frames that were read.
    Commit(u64),
    Discard(usize),
    Rewind,
    CloseProducer,
    CloseConsumer,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => Just(Op::Reserve),
        6 => Just(Op::ReserveOverOldest),
        10 => any::<usize>().prop_map(Op::Publish),
        2 => any::<usize>().prop_map(Op::Abandon),
        10 => Just(Op::Next),
        8 => any::<usize>().prop_map(Op::Release),
        8 => (0u64..8).prop_map(Op::Commit),
        4 => any::<usize>().prop_map(Op::Discard),
        3 => Just(Op::Rewind),
        1 => Just(Op::CloseProducer),
        1 => Just(Op::CloseConsumer),
    ]
}

/// A frame in the window: still being written, or published with this metadata.
type Frame = Option<Option<String>>;

struct Model {
    capacity: usize,
    /// The frames that are not committed.
    window: VecDeque<Frame>,
    /// Frames that are not returned again; those before the window do not matter.
    discarded: BTreeSet<u64>,
    committed: u64,
    read: u64,
    /// Frames before it were read at least once.
    fresh: u64,
    high_water: usize,
}

impl Model {
    fn reserved(&self) -> u64 {
        self.committed + self.window.len() as u64
    }

    fn written(&self) -> u64 {
        self.committed + self.window.iter().take_while(|frame| frame.is_some()).count() as u64
    }

    /// Frames from `from` to before `to` that were not discarded.
    fn count(&self, from: u64, to: u64) -> usize {
        (from..to).filter(|seq| !self.discarded.contains(seq)).count()
    }

    fn len(&self) -> usize {
        self.count(self.committed, self.reserved())
    }

    fn frame(&mut self, seq: u64) -> &mut Frame {
        &mut self.window[(seq - self.committed) as usize]
    }

    fn reserve(&mut self) {
        self.window.push_back(None);
        self.high_water = self.high_water.max(self.len());
    }

    /// Slots in use: those of the window, and those of committed frames that are still held.
    fn used(&self, held: &[ReadSlot<String>]) -> usize {
        let late: BTreeSet<_> = held
            .iter()
            .map(ReadSlot::seq)
            .filter(|seq| *seq < self.committed || self.discarded.contains(seq))
            .collect();
        self.len() + late.len()
    }
}

/// The bytes of a frame: different for every frame and every place.
fn bytes(seq: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (seq.wrapping_mul(31) ^ at.wrapping_mul(7)) as u8).collect()
}

fn filled(mut slot: WriteSlot<String>) -> WriteSlot<String> {
    let content = bytes(slot.seq(), slot.len());
    slot.copy_from_slice(&content);
    slot
}

fn pick<T>(list: &mut Vec<T>, index: usize) -> Option<T> {
    (!list.is_empty()).then(|| list.swap_remove(index % list.len()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_ring_does_what_the_model_does(
        capacity in 2usize..6,
        slot_bytes in prop_oneof![1usize..64, 4090usize..4100],
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let (producer, consumer) = ring::<String>(RingOptions { slots: capacity, slot_bytes })
            .unwrap();
        let monitor = producer.monitor();
        let (mut producer, mut consumer) = (Some(producer), Some(consumer));
        let mut writing: Vec<WriteSlot<String>> = Vec::new();
        let mut held: Vec<ReadSlot<String>> = Vec::new();
        let mut model =
            Model {
                capacity,
                window: VecDeque::new(),
                discarded: BTreeSet::new(),
                committed: 0,
                read: 0,
                fresh: 0,
                high_water: 0,
            };

        for op in ops {
            match op {
                Op::Reserve => {
                    let Some(producer) = &mut producer else { continue };
                    let got = producer.try_reserve();
                    if consumer.is_none() {
                        prop_assert!(got.is_err());
                    } else if model.used(&held) == model.capacity {
                        prop_assert!(got.unwrap().is_none());
                    } else {
                        let slot = got.unwrap().unwrap();
                        prop_assert_eq!(slot.seq(), model.reserved());
                        writing.push(filled(slot));
                        model.reserve();
                    }
                }
                Op::ReserveOverOldest => {
                    let Some(producer) = &mut producer else { continue };
                    let got = producer.try_reserve_over_oldest();
                    if consumer.is_none() {
                        prop_assert!(got.is_err());
                        continue;
                    }
                    let is_full = model.used(&held) == model.capacity;
                    let oldest = (model.fresh.max(model.committed)..model.written())
                        .find(|seq| !model.discarded.contains(seq));
                    match (is_full, oldest, got.unwrap()) {
                        (true, None, got) => prop_assert!(got.is_none()),
                        (is_full, oldest, got) => {
                            let got = got.unwrap();
                            let expected = oldest.filter(|_| is_full).map(|seq| {
                                model.discarded.insert(seq);
                                model.frame(seq).clone().unwrap()
                            });
                            let dropped = got.dropped.map(|meta| meta.map(|m| (*m).clone()));
                            prop_assert_eq!(dropped, expected);
                            prop_assert_eq!(got.slot.seq(), model.reserved());
                            writing.push(filled(got.slot));
                            model.reserve();
                        }
                    }
                }
                Op::Publish(index) => {
                    let Some(slot) = pick(&mut writing, index) else { continue };
                    let meta = format!("frame {}", slot.seq());
                    *model.frame(slot.seq()) = Some(Some(meta.clone()));
                    slot.publish(meta);
                }
                Op::Abandon(index) => {
                    let Some(slot) = pick(&mut writing, index) else { continue };
                    *model.frame(slot.seq()) = Some(None);
                }
                Op::Next => {
                    let Some(consumer) = &mut consumer else { continue };
                    while model.read < model.written() && model.discarded.contains(&model.read) {
                        model.read += 1;
                    }
                    match consumer.try_next() {
                        Next::Slot(slot) => {
                            prop_assert!(model.read < model.written());
                            prop_assert_eq!(slot.seq(), model.read);
                            let meta = model.frame(slot.seq()).clone().unwrap();
                            prop_assert_eq!(slot.meta(), meta.as_ref());
                            held.push(slot);
                            model.read += 1;
                            model.fresh = model.fresh.max(model.read);
                        }
                        Next::Ended => {
                            prop_assert!(producer.is_none());
                            prop_assert_eq!(model.read, model.reserved());
                        }
                        Next::TimedOut => {
                            prop_assert_eq!(model.read, model.written());
                            prop_assert!(producer.is_some() || model.read < model.reserved());
                        }
                    }
                }
                Op::Release(index) => drop(pick(&mut held, index)),
                Op::Commit(more) => {
                    let Some(consumer) = &mut consumer else { continue };
                    let upto = (model.committed + more).saturating_sub(2);
                    consumer.commit(upto);
                    if (model.committed..=model.read).contains(&upto) {
                        model.window.drain(..(upto - model.committed) as usize);
                        model.committed = upto;
                    }
                }
                Op::Discard(index) => {
                    let Some(consumer) = &mut consumer else { continue };
                    if held.is_empty() {
                        continue;
                    }
                    let seq = held[index % held.len()].seq();
                    consumer.discard(seq);
                    if (model.committed..model.read).contains(&seq) {
                        model.discarded.insert(seq);
                    }
                }
                Op::Rewind => {
                    let Some(consumer) = &mut consumer else { continue };
                    prop_assert_eq!(consumer.rewind(), model.committed);
                    model.read = model.committed;
                }
                Op::CloseProducer => producer = None,
                Op::CloseConsumer => consumer = None,
            }

            let snapshot = monitor.snapshot();
            prop_assert_eq!(snapshot.capacity, capacity);
            prop_assert_eq!(snapshot.len, model.len());
            prop_assert_eq!(snapshot.readable, model.count(model.read, model.written()));
            prop_assert_eq!(snapshot.in_flight, model.count(model.committed, model.read));
            prop_assert_eq!(snapshot.written, model.written());
            prop_assert_eq!(snapshot.read, model.read);
            prop_assert_eq!(snapshot.committed, model.committed);
            prop_assert_eq!(snapshot.high_water, model.high_water);
            // No end waited, and no held frame was overwritten.
            prop_assert_eq!((snapshot.producer_waits, snapshot.consumer_waits), (0, 0));
            for slot in &held {
                prop_assert_eq!(&**slot, &bytes(slot.seq(), slot_bytes)[..]);
            }
        }
    }
}
