//! A table: rows in a heap, found by two indexes, all in one transaction.
//!
//! ```text
//!  by_name  "grace" ─► p4.1 ─┐
//!  by_city  "nyc" p4.1 ──────┴─► heap  p4.1  grace,nyc,…        the row may grow and move; its id stays
//! ```

use argali::{Heap, Options, Read, Result, RowId, Tree, Write};

struct People {
    rows: Heap,
    by_name: Tree,
    by_city: Tree,
}

impl People {
    fn open(tx: &mut Write) -> Result<Self> {
        let (rows, by_name) = (tx.heap("people")?, tx.tree("people by name")?);
        Ok(Self { rows, by_name, by_city: tx.tree("people by city")? })
    }

    fn add(&self, tx: &Write, name: &str, city: &str) -> Result<RowId> {
        let id = self.rows.insert(tx, format!("{name},{city}"))?;
        tx.put(&self.by_name, name, id.to_bytes())?;
        tx.put(&self.by_city, city_key(city, id), "")?;
        Ok(id)
    }

    /// The row grows; no index hears of it.
    fn note(&self, tx: &Write, id: RowId, note: &str) -> Result<()> {
        let mut row = self.rows.get_for_update(tx, id)?.expect("an id of ours");
        row.extend_from_slice(format!(",{note}").as_bytes());
        self.rows.update(tx, id, row)
    }

    fn in_city(&self, read: &Read, city: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in read.scan_prefix(&self.by_city, format!("{city}\0"))? {
            let (key, _) = entry?;
            let id = RowId::from_bytes(&key[city.len() + 1..]).expect("a city key ends in an id");
            let row = self.rows.get(read, id)?.expect("index and heap change together");
            found.push(String::from_utf8_lossy(&row).into_owned());
        }
        Ok(found)
    }
}

/// Several people live in one city, so the row's id makes the key one of a kind.
fn city_key(city: &str, id: RowId) -> Vec<u8> {
    [city.as_bytes(), b"\0", &id.to_bytes()].concat()
}

fn main() -> Result<()> {
    let db = Options::new().temporary()?;
    let (people, ada) = db.update(|tx| {
        let people = People::open(tx)?;
        let ada = people.add(tx, "ada", "london")?;
        people.add(tx, "grace", "new york")?;
        people.add(tx, "alan", "london")?;
        Ok((people, ada))
    })?;
    for n in 0..300 {
        db.update(|tx| people.note(tx, ada, &format!("note {n}")))?;
    }

    let read = db.read()?;
    for row in people.in_city(&read, "london")? {
        println!("{} bytes: {}…", row.len(), &row[..row.len().min(24)]);
    }
    println!("{} people in all", people.rows.scan(&read)?.count());
    read.finish()
}
