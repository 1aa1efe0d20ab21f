import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { join } from 'node:path';
import koffi from 'koffi';

/** Below argv[3], makes one change of each kind (argv[2] `do`), each of which must happen exactly once, or looks what came of them (`check`). */
const O_TMPFILE = 0o20200000;
const AT_FDCWD = -100;
const AT_SYMLINK_FOLLOW = 0x400;
const [, , what, base] = process.argv;
const at = (name: string): string => join(base!, name);

function change(): void {
  fs.writeFileSync(at('old'), 'of old');
  const unlinked = fs.openSync(at('old'), 'r+');
  fs.linkSync(at('old'), at('other'));
  fs.mkdirSync(at('d'));
  assert.throws(() => fs.mkdirSync(at('d')), { code: 'EEXIST' });
  execFileSync('mknod', [at('fifo'), 'p']);
  fs.symlinkSync('to', at('link'));
  fs.renameSync(at('link'), at('d/link'));
  assert.throws(() => fs.rmdirSync(at('d')), { code: 'ENOTEMPTY' });
  fs.unlinkSync(at('d/link'));
  fs.rmdirSync(at('d'));
  fs.chmodSync(at('old'), 0o600);
  fs.truncateSync(at('old'), 100);
  fs.writeFileSync(at('new'), Buffer.alloc(300_000, 'written '), { flag: 'wx' });
  fs.appendFileSync(at('new'), 'and more');
  execFileSync('fallocate', ['-l', '500000', at('new')]);
  fs.copyFileSync(at('new'), at('copy'), fs.constants.COPYFILE_EXCL);
  fs.unlinkSync(at('old'));
  fs.unlinkSync(at('other'));
  const temporary = fs.openSync(base!, O_TMPFILE | fs.constants.O_RDWR, 0o640);
  fs.writeSync(temporary, 'no name yet');
  // Node's link(2) does not follow the symlink.
  const linkat = koffi.load(null).func('int linkat(int, const char *, int, const char *, int)');
  assert.equal(linkat(AT_FDCWD, `/proc/self/fd/${temporary}`, AT_FDCWD, at('named'), AT_SYMLINK_FOLLOW), 0);
  const { nlink, size } = fs.fstatSync(unlinked);
  assert.deepEqual([nlink, size], [0, 100]);
  const into = Buffer.alloc(6);
  fs.readSync(unlinked, into, 0, 6, 0);
  assert.equal(into.toString(), 'of old');
}

function check(): void {
  assert.deepEqual(fs.readdirSync(base!).toSorted(), ['copy', 'fifo', 'named', 'new']);
  const expected = Buffer.alloc(500_000);
  Buffer.from(`${'written '.repeat(37_500)}and more`).copy(expected);
  for (const name of ['new', 'copy']) assert.ok(fs.readFileSync(at(name)).equals(expected), name);
  assert.equal(fs.readFileSync(at('named'), 'utf8'), 'no name yet');
  assert.equal(fs.statSync(at('named')).nlink, 1);
}

if (what === 'do') change();
check();
