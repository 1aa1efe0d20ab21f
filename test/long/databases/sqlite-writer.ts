import { writeSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { rowsOf } from './database.ts';

/** Writes transactions from argv[3] on into the database argv[2], and says the number of each that was committed. */
const [, , path, first] = process.argv;
const db = new DatabaseSync(path!);
// With less a power cut may undo the last commit of a journal that is deleted, on any filesystem: its removal is not synced.
db.exec('pragma synchronous = extra; pragma busy_timeout = 10000');
const insert = db.prepare('insert into t values (?, ?, ?)');
const count = db.prepare('update total set rows = rows + ?');
for (let transaction = Number(first); ; transaction++) {
  db.exec('begin immediate');
  for (let row = 0; row < rowsOf(transaction); row++)
    insert.run(transaction, row, Buffer.alloc((transaction * 7919) % 6000, transaction));
  count.run(rowsOf(transaction));
  db.exec('commit');
  writeSync(1, `${transaction}\n`);
}
