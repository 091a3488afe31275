//! The descriptions of topics in a database, besides names and types.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::database::Database;
use crate::Schema;

/// Columns of `topics` with further properties of a channel. Older recorders wrote fewer columns.
const COLUMNS: [&str; 2] = ["offered_qos_profiles", "type_description_hash"];

/// Definitions of types, and further columns of topics.
#[derive(Default)]
pub(super) struct Descriptions {
    /// By type.
    schemas: HashMap<String, Schema>,
    /// By number of the topic.
    metadata: HashMap<i64, BTreeMap<String, String>>,
    /// Some definitions exceeded the limit.
    pub(super) is_cut: bool,
}

impl Descriptions {
    /// Reads the descriptions, with at most `room` bytes of definitions. Missing tables and columns
    /// are skipped.
    pub(super) fn read(database: &Database, room: u64) -> rusqlite::Result<Self> {
        let mut found = Self::default();
        found.read_metadata(database)?;
        if database.check_table("message_definitions")?.is_ok() {
            found.read_definitions(database, room)?;
        }
        Ok(found)
    }

    fn read_metadata(&mut self, database: &Database) -> rusqlite::Result<()> {
        let mut query = database.connection.prepare("SELECT * FROM topics")?;
        let columns = COLUMNS.map(|name| (name, query.column_index(name).ok()));
        let id = query.column_index("id")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let mut metadata = BTreeMap::new();
            for (name, column) in columns {
                let text = column.and_then(|column| row.get_ref(column).ok()?.as_str().ok());
                if let Some(text) = text.filter(|text| !text.is_empty()) {
                    metadata.insert(name.to_owned(), text.to_owned());
                }
            }
            self.metadata.insert(row.get(id)?, metadata);
        }
        Ok(())
    }

    fn read_definitions(&mut self, database: &Database, mut room: u64) -> rusqlite::Result<()> {
        let mut query = database.connection.prepare(
            "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions",
        )?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let (name, encoding): (String, String) = (row.get(0)?, row.get(1)?);
            let data = row.get_ref(2)?.as_str().unwrap_or_default().as_bytes();
            let Some(rest) = room.checked_sub(data.len() as u64) else {
                self.is_cut = true;
                continue;
            };
            room = rest;
            let data = Bytes::copy_from_slice(data);
            let schema = Schema { recorded_id: None, name: name.clone(), encoding, data };
            self.schemas.entry(name).or_insert(schema);
        }
        Ok(())
    }

    /// The type called `name`; without a definition if the database has none.
    pub(super) fn schema(&self, name: &str) -> Schema {
        self.schemas.get(name).cloned().unwrap_or_else(|| Schema {
            recorded_id: None,
            name: name.into(),
            encoding: "ros2msg".into(),
            data: Bytes::new(),
        })
    }

    /// Further columns of the topic with this number.
    pub(super) fn metadata(&mut self, topic: i64) -> BTreeMap<String, String> {
        self.metadata.remove(&topic).unwrap_or_default()
    }
}
