//! Tells the publishers of a topic apart by the frame ids of its messages.
//!
//! Two cameras that publish on one topic have frame ids that alternate. A camera whose frame id
//! changes once, such as from an empty frame id at its start, is one publisher. Therefore messages
//! with a new frame id are held until an earlier frame id returns, or until it has not returned for
//! a while.

use std::collections::VecDeque;

use crate::source::{Packet, Payload};

/// The most messages that are held, and the most bytes of their pictures.
const MOST_HELD: usize = 64;
const MOST_HELD_BYTES: usize = 64 << 20;
/// The most publishers of a topic, and the most frame ids of a publisher. Beyond that, frame ids
/// are ignored.
const MOST: usize = 8;
/// A message with an empty frame id, after at least this many messages with another one, is taken
/// for an omission of the driver, once in a topic.
const NAMED_BEFORE: u64 = 8;

/// The publishers of a topic.
pub(crate) struct Publishers<T> {
    /// The frame ids of each publisher, in order of appearance.
    ids: Vec<Vec<String>>,
    /// The publisher of the last message.
    last: usize,
    /// Messages with frame ids that are new.
    held: Vec<(String, T)>,
    held_bytes: usize,
    /// The number of the first held message.
    first_held: u64,
    is_ignored: bool,
    /// Messages with a known frame id since the last message with an empty one.
    named: u64,
    /// An empty frame id was taken for an omission, with a warning.
    is_omitted: bool,
    ready: VecDeque<(usize, T)>,
    warnings: Vec<String>,
}

impl<T> Default for Publishers<T> {
    fn default() -> Self {
        Self {
            ids: Vec::new(),
            last: 0,
            held: Vec::new(),
            held_bytes: 0,
            first_held: 0,
            is_ignored: false,
            named: 0,
            is_omitted: false,
            ready: VecDeque::new(),
            warnings: Vec::new(),
        }
    }
}

impl<T> Publishers<T> {
    /// Adds the message with this number, and a picture of `bytes` bytes. Without a frame id, it
    /// belongs to the publisher of the message before it.
    pub fn push(&mut self, number: u64, frame_id: Option<String>, bytes: usize, message: T) {
        if self.held.is_empty() {
            self.first_held = number;
        }
        let Some(id) = frame_id.filter(|_| !self.is_ignored) else {
            match self.held.last() {
                Some((id, _)) => self.hold(id.clone(), bytes, message),
                None => self.ready.push_back((self.last, message)),
            }
            return;
        };
        if self.ids.is_empty() {
            self.ids.push(vec![id.clone()]);
        }
        if self.find(&id).is_some() {
            if !self.release_omission() {
                self.separate(false);
            }
            self.unjoin(&id);
        } else if self.is_repeated(&id) {
            self.separate(true);
        }
        match self.find(&id) {
            Some(publisher) => {
                self.warn_of_return(&id, publisher, number);
                self.named = if id.is_empty() { 0 } else { self.named + 1 };
                self.last = publisher;
                self.ready.push_back((publisher, message));
            }
            None => self.hold(id, bytes, message),
        }
    }

    /// Called at the end of the topic: no earlier frame id returns any more.
    pub fn end(&mut self) {
        self.join();
    }

    /// The next message, and the number of its publisher.
    pub fn next(&mut self) -> Option<(usize, T)> {
        self.ready.pop_front()
    }

    /// The warnings since the last call.
    pub fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// The frame id of a publisher; `None` if the topic has only one publisher.
    pub fn frame_id(&self, publisher: usize) -> Option<&str> {
        let ids = self.ids.get(publisher).filter(|_| self.ids.len() > 1)?;
        ids.last().map(String::as_str)
    }

    fn find(&self, id: &str) -> Option<usize> {
        self.ids.iter().position(|ids| ids.iter().any(|known| known == id))
    }

    /// Whether a held frame id returns after another held frame id.
    fn is_repeated(&self, id: &str) -> bool {
        let mut held = self.held.iter().map(|(held, _)| held.as_str());
        held.any(|held| held == id) && self.held.last().is_some_and(|(last, _)| last != id)
    }

    fn hold(&mut self, id: String, bytes: usize, message: T) {
        self.held.push((id, message));
        self.held_bytes += bytes;
        let is_full = self.held.len() >= MOST_HELD || self.held_bytes >= MOST_HELD_BYTES;
        if is_full || self.held_ids().len() > MOST {
            self.join();
        }
    }

    /// The held frame ids, in order of appearance.
    fn held_ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = Vec::new();
        for (id, _) in &self.held {
            if !ids.contains(id) {
                ids.push(id.clone());
            }
        }
        ids
    }

    /// Passes the held message to the only publisher, if it is a single one with an empty frame id
    /// among many others, for the first time.
    fn release_omission(&mut self) -> bool {
        let is_omission = matches!(&self.held[..], [(id, _)] if id.is_empty())
            && self.named >= NAMED_BEFORE
            && self.ids.len() == 1
            && !self.is_omitted;
        if is_omission {
            self.is_omitted = true;
            self.warnings.push(format!(
                "message {} has an empty frame id and is taken for a picture of \"{}\"",
                self.first_held,
                self.name(self.last)
            ));
            self.release();
        }
        is_omission
    }

    /// Warns once in a topic that messages have the empty frame id again, after another frame id
    /// had replaced it.
    fn warn_of_return(&mut self, id: &str, publisher: usize, number: u64) {
        let name = self.name(publisher);
        if id.is_empty() && !name.is_empty() && !self.is_omitted {
            self.warnings.push(format!(
                "the empty frame id returns at message {number}: messages with it are taken for \
                 pictures of \"{name}\""
            ));
            self.is_omitted = true;
        }
    }

    /// The last frame id of a publisher.
    fn name(&self, publisher: usize) -> &str {
        self.ids.get(publisher).and_then(|ids| ids.last()).map_or("", String::as_str)
    }

    /// An earlier frame id has returned: each held frame id is a publisher of its own. `replaced`:
    /// the first held frame id replaced that of the last publisher, since another one returned.
    fn separate(&mut self, replaced: bool) {
        let mut new = self.held_ids().into_iter();
        if replaced {
            self.add_to_last(new.next());
        }
        let known = self.ids.len();
        for id in new {
            match self.ids.len() < MOST {
                true => self.ids.push(vec![id]),
                false => self.add_to_last(Some(id)),
            }
        }
        if self.ids.len() > known {
            let names = self.ids.iter().filter_map(|ids| ids.last());
            let names: Vec<_> = names.map(|id| format!("\"{id}\"")).collect();
            let earlier = match self.is_omitted && self.find("").is_some_and(|n| n >= known) {
                true => {
                    ", from here on: an earlier message with an empty frame id is in the video \
                         of the one before it"
                }
                false => "",
            };
            self.warnings.push(format!(
                "the frame ids {} alternate, so the topic has {} publishers: each has a video of \
                 its own{earlier}",
                names.join(", "),
                names.len()
            ));
        }
        self.release();
    }

    /// No earlier frame id has returned: the held frame ids replaced that of the last publisher.
    fn join(&mut self) {
        for id in self.held_ids() {
            self.add_to_last(Some(id));
        }
        self.release();
    }

    fn add_to_last(&mut self, id: Option<String>) {
        let (Some(id), Some(ids)) = (id, self.ids.get_mut(self.last)) else { return };
        ids.push(id);
        // Such as a frame id with the number of the frame in it.
        self.is_ignored |= ids.len() > MOST;
    }

    /// Makes publishers of the frame ids that replaced `id`, which has returned after all. An empty
    /// frame id that returns may be left out by a driver now and then.
    fn unjoin(&mut self, id: &str) {
        let is_full = self.ids.len() >= MOST || self.is_ignored || id.is_empty();
        let Some(ids) = self.ids.iter_mut().find(|ids| ids.iter().any(|known| known == id)) else {
            return;
        };
        let at = ids.iter().position(|known| known == id).map_or(ids.len(), |at| at + 1);
        if at == ids.len() || is_full {
            return;
        }
        let later = ids.split_off(at);
        let names: Vec<_> = later.iter().map(|id| format!("\"{id}\"")).collect();
        self.warnings.push(format!(
            "the frame id \"{id}\" returns after {}, so the topic has another publisher: it has a \
             video of its own from here on, and its frames before are in that of \"{id}\"",
            names.join(", ")
        ));
        self.ids.push(later);
    }

    fn release(&mut self) {
        self.held_bytes = 0;
        for (id, message) in std::mem::take(&mut self.held) {
            self.last = self.find(&id).unwrap_or(self.last);
            self.ready.push_back((self.last, message));
        }
    }
}

/// Bytes of a message's picture.
pub(crate) fn bytes(packet: &Packet) -> usize {
    match &packet.payload {
        Ok(Payload::Raw(image)) => image.data.len(),
        Ok(Payload::Compressed { data, .. } | Payload::Video { data, .. }) => data.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The publishers of messages with these frame ids (`-`: none), and the number of warnings.
    fn publishers(ids: &[&str]) -> (String, usize) {
        let mut publishers = Publishers::default();
        let (mut out, mut seen) = (String::new(), 0);
        let mut take = |publishers: &mut Publishers<usize>| {
            while let Some((publisher, number)) = publishers.next() {
                assert_eq!(number, seen, "in order");
                seen += 1;
                out.push_str(&publisher.to_string());
            }
        };
        for (number, id) in ids.iter().enumerate() {
            publishers.push(number as u64, (*id != "-").then(|| id.to_string()), 1000, number);
            take(&mut publishers);
        }
        publishers.end();
        take(&mut publishers);
        assert_eq!(seen, ids.len());
        (out, publishers.warnings().len())
    }

    #[test]
    fn frame_ids_that_alternate_are_publishers() {
        // Frame ids, the publisher of each message, warnings.
        let table: &[(&[&str], &str, usize)] = &[
            (&["a", "a", "a"], "000", 0),
            (&["-", "-"], "00", 0),
            (&["a", "b", "a", "b"], "0101", 1),
            (&["a", "b", "b", "b", "a", "b"], "011101", 1),
            (&["", "b", "", "b"], "0101", 1),
            // A message that cannot be read.
            (&["a", "-", "b", "-", "a", "-"], "001100", 1),
            (&["a", "b", "c", "a", "b", "c"], "012012", 1),
            // A frame id that changes once.
            (&["", "a", "a", "a"], "0000", 0),
            (&["a", "a", "b", "b", "b"], "00000", 0),
            (&["a", "b", "c", "d"], "0000", 0),
            // One message without a name is no camera; a second one is.
            (&["a", "a", "a", "a", "a", "a", "a", "a", "", "a", "a"], "00000000000", 1),
            (&["a", "a", "a", "a", "a", "a", "a", "a", "", "a", "", "a", ""], "0000000000101", 2),
            (&["a", "", "a", "", "a"], "01010", 1),
            (&["a", "b", "a", "b", "a", "b", "a", "b", "a", "b", "", "a"], "010101010120", 2),
            // It changes once, and another one joins.
            (&["", "b", "c", "b", "c"], "00101", 1),
        ];
        for (ids, expected, warnings) in table {
            assert_eq!(publishers(ids), (expected.to_string(), *warnings), "{ids:?}");
        }
    }

    #[test]
    fn what_is_held_is_bounded() {
        // A frame id returns late: separate from there on.
        let late = [&["a"; 3][..], &["b"; 100], &["a", "b", "a", "b"]].concat();
        let (all, warnings) = publishers(&late);
        assert_eq!((&all[..103], &all[103..], warnings), (&*"0".repeat(103), "0101", 1));
        // An empty frame id now and then.
        let stray = [&[""; 3][..], &["b"; 100], &[""], &["b"; 9]].concat();
        assert_eq!(publishers(&stray), ("0".repeat(113), 1));
        // Each message has another frame id.
        let names: Vec<_> = (0..1000).map(|n| n.to_string()).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        assert_eq!(publishers(&names), ("0".repeat(1000), 0));
        // More cameras than videos: the others are in the video of the first.
        let many: Vec<_> = (0..200).map(|n| names[n % 20]).collect();
        assert!(publishers(&many).0.chars().all(|publisher| publisher < '8'));

        let mut publishers = Publishers::default();
        publishers.push(0, Some("a".into()), 1, 0);
        publishers.push(1, Some("b".into()), MOST_HELD_BYTES, 1);
        assert_eq!(publishers.next().zip(publishers.next()), Some(((0, 0), (0, 1))));
    }
}
