//! A bank that can prove its own books: balances, and a journal that must explain them.
//!
//! ```text
//!  tree bank      opening  → 1000          tree journal   000001/003/000000017 → 42 7 100
//!                 accounts → 1000                         run / teller / serial  from to amount
//!                 runs     → 1             tree draft     rows of a statement that never commits
//!  tree accounts  000042   → 900
//! ```
//!
//! One transfer is one transaction: two balances and one journal row. So after any crash
//!
//! - L1: replaying the journal from the opening balances gives exactly the balances. A transfer that is
//!   half there breaks this, whichever half it is;
//! - L2: the sum of all balances is accounts × opening;
//! - L3: `draft` holds no committed row, because nothing ever commits one.
//!
//! What was acknowledged is known only outside; see `demo/proof.rs`. Transfers take their locks in the
//! order payer, payee, as a naive program would: deadlocks happen, and [`Db::update`] runs them again.

use argali::{Db, Durability, Error, Isolation, Result, Tree, Write};

/// Balance of every account when the bank opens.
pub(crate) const OPENING: u64 = 1000;
/// Accounts made in one transaction while loading.
const LOAD_BATCH: u32 = 1000;

/// Money that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// Account that pays.
    pub(crate) from: u32,
    /// Account that is paid.
    pub(crate) to: u32,
    /// How much; less than was asked for when the payer has less.
    pub(crate) amount: u64,
}

impl Transfer {
    /// A transfer between two different accounts out of `accounts`.
    pub(crate) fn random(rng: &mut fastrand::Rng, accounts: u32) -> Self {
        let from = rng.u32(..accounts);
        let to = (from + rng.u32(1..accounts)) % accounts;
        Self { from, to, amount: rng.u64(1..=100) }
    }

    /// As a journal row's value.
    pub(crate) fn to_row(self) -> String {
        format!("{} {} {}", self.from, self.to, self.amount)
    }

    /// What [`Transfer::to_row`] wrote.
    pub(crate) fn from_row(row: &str) -> Option<Self> {
        let mut fields = row.split(' ');
        let transfer = Self {
            from: fields.next()?.parse().ok()?,
            to: fields.next()?.parse().ok()?,
            amount: fields.next()?.parse().ok()?,
        };
        fields.next().is_none().then_some(transfer)
    }
}

/// An open bank. Clones share it.
#[derive(Clone)]
pub(crate) struct Ledger {
    db: Db,
    bank: Tree,
    accounts: Tree,
    journal: Tree,
    draft: Tree,
    size: u32,
}

impl Ledger {
    /// Makes a bank with `size` accounts in `db`. A load that was cut short is simply done again; a
    /// bank that is there already is [`Error::Exists`].
    pub(crate) fn load(db: &Db, size: u32) -> Result<Self> {
        let (bank, accounts, journal, draft) = db.update(|txn| {
            Ok((txn.tree("bank")?, txn.tree("accounts")?, txn.tree("journal")?, txn.tree("draft")?))
        })?;
        let ledger = Self { db: db.clone(), bank, accounts, journal, draft, size };
        if ledger.number("accounts")?.is_some() {
            return Err(Error::Exists { what: "bank", name: db_name() });
        }
        for first in (0..size).step_by(LOAD_BATCH as usize) {
            let txn = db.begin()?;
            for account in first..size.min(first + LOAD_BATCH) {
                txn.put(&ledger.accounts, account_key(account), OPENING.to_string())?;
            }
            txn.commit_with(Durability::Relaxed)?;
        }
        // Written last and synced: a bank without this row is not there yet.
        db.update(|txn| {
            txn.put(&ledger.bank, "opening", OPENING.to_string())?;
            txn.put(&ledger.bank, "accounts", size.to_string())
        })?;
        Ok(ledger)
    }

    /// The bank in `db`, or `NotFound`.
    pub(crate) fn open(db: &Db) -> Result<Self> {
        let missing = || Error::NotFound { what: "bank", name: db_name() };
        let read = db.read()?;
        let tree = |name: &str| read.open_tree(name)?.ok_or_else(missing);
        let (bank, accounts) = (tree("bank")?, tree("accounts")?);
        let (journal, draft) = (tree("journal")?, tree("draft")?);
        read.finish()?;
        let mut ledger = Self { db: db.clone(), bank, accounts, journal, draft, size: 0 };
        ledger.size = ledger.number("accounts")?.ok_or_else(missing)? as u32;
        Ok(ledger)
    }

    /// How many accounts there are.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// Sum of all balances, always.
    pub(crate) fn total(&self) -> u64 {
        u64::from(self.size) * OPENING
    }

    /// A number that no earlier run of tellers has had: makes journal keys unique for ever.
    pub(crate) fn begin_run(&self) -> Result<u64> {
        self.db.update(|txn| {
            let run = txn.get_for_update(&self.bank, "runs")?;
            let run = run.map_or(Ok(0), |text| parse(&text, "runs"))? + 1;
            txn.put(&self.bank, "runs", run.to_string())?;
            Ok(run)
        })
    }

    /// Makes `wanted` under journal key `key` and returns what was really moved, once it is as durable
    /// as the database's default says.
    pub(crate) fn transfer(&self, key: &str, wanted: Transfer) -> Result<Transfer> {
        self.db.update(|txn| self.transfer_in(txn, key, wanted))
    }

    fn transfer_in(&self, txn: &mut Write, key: &str, wanted: Transfer) -> Result<Transfer> {
        let payer = self.balance(txn, wanted.from)?;
        let done = Transfer { amount: wanted.amount.min(payer), ..wanted };
        txn.put(&self.accounts, account_key(done.from), (payer - done.amount).to_string())?;
        let payee = self.balance(txn, done.to)?;
        txn.put(&self.accounts, account_key(done.to), (payee + done.amount).to_string())?;
        if !txn.insert_new(&self.journal, key, done.to_row())? {
            return Err(Error::Exists { what: "journal row", name: key.to_owned() });
        }
        Ok(done)
    }

    fn balance(&self, txn: &Write, account: u32) -> Result<u64> {
        let key = account_key(account);
        let text = txn.get_for_update(&self.accounts, &key)?;
        parse(&text.ok_or(Error::NotFound { what: "account", name: key })?, "balance")
    }

    /// Writes `rows` rows of a statement in one transaction and takes them back. `pause` is called after
    /// every row; while it holds the thread up, the transaction stays open.
    pub(crate) fn draft(&self, rows: u32, mut pause: impl FnMut(u32)) -> Result<()> {
        let txn = self.db.begin()?;
        for row in 0..rows {
            let line =
                format!("this statement is never finished, so nobody may ever see row {row}");
            txn.put(&self.draft, format!("{row:08}"), line)?;
            pause(row);
        }
        txn.abort()
    }

    /// Goes through the books; `visit` sees every journal row. Memory: 8 bytes per account.
    pub(crate) fn audit(&self, mut visit: impl FnMut(&str, Transfer)) -> Result<Audit> {
        let mut audit = Audit { expected_sum: self.total(), ..Audit::default() };
        // Nobody else is at work, and a lock on every row of a long journal would cost memory.
        let read = self.db.read_with(Isolation::ReadCommitted)?;
        let mut replayed = vec![OPENING.cast_signed(); self.size as usize];
        for pair in read.scan_all(&self.journal)? {
            let (key, row) = pair?;
            let key = String::from_utf8_lossy(&key);
            let Some(transfer) = Transfer::from_row(&String::from_utf8_lossy(&row)) else {
                audit.fault(format!("journal row {key} makes no sense"));
                continue;
            };
            audit.transfers += 1;
            replay(&mut replayed, transfer, &mut audit);
            visit(&key, transfer);
        }
        for pair in read.scan_all(&self.accounts)? {
            let (key, value) = pair?;
            let name = String::from_utf8_lossy(&key).into_owned();
            let Ok(balance) = parse(&value, "balance") else {
                audit.fault(format!("the balance of account {name} makes no sense"));
                continue;
            };
            audit.sum += balance;
            let explained = replayed.get(audit.accounts as usize).copied();
            audit.accounts += 1;
            if explained != Some(balance.cast_signed()) {
                audit
                    .fault(format!("account {name} has {balance}, the journal says {explained:?}"));
            }
        }
        audit.drafts = read.scan_all(&self.draft)?.count() as u64;
        read.finish()?;
        if audit.accounts != u64::from(self.size) {
            audit.fault(format!("{} accounts of {}", audit.accounts, self.size));
        }
        Ok(audit)
    }

    fn number(&self, key: &str) -> Result<Option<u64>> {
        let read = self.db.read()?;
        let text = read.get(&self.bank, key)?;
        read.finish()?;
        text.map(|text| parse(&text, "number")).transpose()
    }
}

fn replay(balances: &mut [i64], transfer: Transfer, audit: &mut Audit) {
    let amount = transfer.amount.cast_signed();
    for (account, change) in [(transfer.from, -amount), (transfer.to, amount)] {
        match balances.get_mut(account as usize) {
            Some(balance) => *balance += change,
            None => audit.fault(format!("the journal names account {account}")),
        }
    }
}

/// What the books say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audit {
    /// Accounts found.
    pub(crate) accounts: u64,
    /// Journal rows found.
    pub(crate) transfers: u64,
    /// Sum of the balances.
    pub(crate) sum: u64,
    /// What it must be.
    pub(crate) expected_sum: u64,
    /// Rows of unfinished statements: must be none.
    pub(crate) drafts: u64,
    /// How often L1 is broken.
    pub(crate) faults: u64,
    /// The first place where it is.
    pub(crate) first_fault: Option<String>,
}

impl Audit {
    /// Whether L1, L2 and L3 hold.
    pub(crate) fn holds(&self) -> bool {
        self.faults == 0 && self.sum == self.expected_sum && self.drafts == 0
    }

    fn fault(&mut self, what: String) {
        self.faults += 1;
        self.first_fault.get_or_insert(what);
    }
}

fn account_key(account: u32) -> String {
    format!("{account:08}")
}

fn db_name() -> String {
    "bank".to_owned()
}

/// A row of ours that cannot be read was not written by us.
fn parse(text: &[u8], what: &'static str) -> Result<u64> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::TxnFailed {
        cause: format!("{what} {:?} is not a number", String::from_utf8_lossy(text)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_written() {
        let transfer = Transfer { from: 1, to: 2, amount: 3 };
        assert_eq!(Transfer::from_row(&transfer.to_row()), Some(transfer));
        assert_eq!(Transfer::from_row("1 2"), None);
        assert_eq!(Transfer::from_row("1 2 3 4"), None);
    }

    #[test]
    fn a_transfer_has_two_ends() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..1000 {
            let transfer = Transfer::random(&mut rng, 2);
            assert_ne!(transfer.from, transfer.to);
        }
    }
}
