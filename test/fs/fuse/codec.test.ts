import assert from 'node:assert/strict';
import { Lookups } from '../../../fs/fuse/lookups.ts';
import { operationTable } from '../../../fs/fuse/operations.ts';
import { OPCODE } from '../../../fs/fuse/protocol.ts';
import { Reply } from '../../../fs/fuse/reply.ts';
import { Request } from '../../../fs/fuse/request.ts';
import { newSession, NO_REPLY, type Session } from '../../../fs/fuse/session.ts';
import { FsError } from '../../../fs/view/error.ts';
import type { Attr, View } from '../../../fs/view/view.ts';

const ATTR: Attr = {
  ino: 0x10_0000_0001,
  size: 0x2_0000_0003,
  blocks: 8,
  mode: 0o100644,
  nlink: 2,
  uid: 1000,
  gid: 100,
  rdev: 0,
  blksize: 4096,
  atimeSec: -1,
  atimeNsec: 999_999_999,
  mtimeSec: 1_700_000_000,
  mtimeNsec: 5,
  ctimeSec: 1_700_000_001,
  ctimeNsec: 6,
  btimeSec: 1_600_000_000,
  btimeNsec: 7,
};

/** The bytes of the attribute above as `struct fuse_attr`, written out by hand from linux/fuse.h. */
const ATTR_HEX =
  '0100000010000000' + // ino
  '0300000002000000' + // size
  '0800000000000000' + // blocks
  'ffffffffffffffff' + // atime
  '00f1536500000000' + // mtime
  '01f1536500000000' + // ctime
  'ffc99a3b' + // atimensec
  '05000000' + // mtimensec
  '06000000' + // ctimensec
  'a4810000' + // mode
  '02000000' + // nlink
  'e8030000' + // uid
  '64000000' + // gid
  '00000000' + // rdev
  '00100000' + // blksize
  '00000000'; // flags
const FOREVER_HEX = 'ffffff7f00000000';

/** A request as the kernel writes it: header of 40 bytes, then the body. */
function wire(request: Request, opcode: number, nodeid: bigint, bodyHex: string, uid = 0, gid = 0): Request {
  const body = Buffer.from(bodyHex, 'hex');
  const header = Buffer.alloc(40);
  header.writeUInt32LE(40 + body.length, 0);
  header.writeUInt32LE(opcode, 4);
  header.writeBigUInt64LE(0xfedcba9876543210n, 8);
  header.writeBigUInt64LE(nodeid, 16);
  header.writeUInt32LE(uid, 24);
  header.writeUInt32LE(gid, 28);
  header.writeUInt32LE(4711, 32);
  request.bytes.set(header);
  request.bytes.set(body, 40);
  assert.ok(request.parse(40 + body.length));
  return request;
}

const text = (s: string): string => Buffer.from(`${s}\0`, 'latin1').toString('hex');

/** Calls that reached the view, and what it answers: enough of a View for one request at a time. */
function recording(answers: Partial<View>): { view: View; calls: unknown[][] } {
  const calls: unknown[][] = [];
  const view = new Proxy({ request: { low: 0, high: 0 } } as View, {
    get: (target, name: keyof View) => {
      if (name === 'request') return target.request;
      return (...args: unknown[]) => {
        const kept = args.map((a) =>
          a instanceof Uint8Array ? Buffer.from(a).toString('latin1') : structuredCloneable(a),
        );
        calls.push([name, ...kept]);
        const answer = answers[name] as ((...a: unknown[]) => unknown) | undefined;
        return answer === undefined ? ATTR : answer(...args);
      };
    },
  });
  return { view, calls };
}

const structuredCloneable = (a: unknown): unknown => (typeof a === 'object' && a !== null ? { ...a } : a);

describe('fs/fuse: the codec on literal bytes', () => {
  const request = new Request();
  const reply = new Reply();
  let session: Session;
  let calls: unknown[][];

  function serve(answers: Partial<View>, opcode: number, nodeid: bigint, bodyHex: string, readOnly = false): string {
    const recorded = recording(answers);
    calls = recorded.calls;
    const hooks = {
      sync: () => false,
      writeBack: () => {},
      patienceMs: () => -1,
      agreed: () => {},
      forgetAttributes: () => {},
      attend: () => true,
      hasWork: () => false,
      work: () => {},
      report: assert.fail,
    };
    session = newSession(recorded.view, new Lookups(), { readOnly, writeback: true }, hooks);
    session.maxPayload = 1 << 20;
    wire(request, opcode, nodeid, bodyHex, 1000, 100);
    const result = operationTable(readOnly)[opcode]!(session, request, reply);
    if (result === NO_REPLY) return 'no reply';
    if (result < 0) return `errno ${-result}`;
    const length = reply.finish(request.uniqueLow, request.uniqueHigh, 0, result);
    return reply.bytes.toString('hex', 0, length);
  }

  /** The calls that change something. */
  const changing = (): unknown[][] => calls.filter(([name]) => name !== 'getattr');

  const CALLER = { uid: 1000, gid: 100, pid: 4711, umask: 0 };
  /** `fuse_out_header` of an answer of `length` bytes, with the unique of `wire`. */
  const head = (length: number): string => {
    const bytes = Buffer.alloc(8);
    bytes.writeUInt32LE(length);
    return bytes.toString('hex') + '1032547698badcfe';
  };
  const ENTRY_HEX = '0100000010000000' + '0000000000000000' + FOREVER_HEX + FOREVER_HEX + '0000000000000000' + ATTR_HEX;

  it('decodes the header and refuses what is not one whole request', () => {
    wire(request, OPCODE.GETATTR, 0x1f_ffff_ffff_ffffn, '', 7, 8);
    assert.deepEqual(
      [request.opcode, request.nodeid, request.uid, request.gid, request.pid, request.bodyLength],
      [3, 2 ** 53 - 1, 7, 8, 4711, 0],
    );
    assert.equal(request.parse(39), false);
    assert.equal(request.parse(41), false);
  });

  it('INIT: agrees on 7.45 and the features that both have', () => {
    const answer = serve(
      {},
      OPCODE.INIT,
      0n,
      '07000000' + '2d000000' + '00000200' + 'ffffffff' + 'ffffffff' + '00'.repeat(44),
    );
    const payload = Buffer.from(answer, 'hex').subarray(16);
    assert.equal(payload.length, 64);
    assert.deepEqual([payload.readUInt32LE(0), payload.readUInt32LE(4), payload.readUInt32LE(8)], [7, 45, 131072]);
    const flags = payload.readUInt32LE(12);
    for (const bit of [0, 4, 5, 6, 13, 14, 16, 17, 18, 20, 21, 22, 23, 24, 25, 28, 29, 30])
      assert.ok(flags & (1 << bit), `bit ${bit}`);
    // POSIX_LOCKS, ATOMIC_O_TRUNC, FLOCK_LOCKS, AUTO_INVAL_DATA, ASYNC_DIO must not be.
    for (const bit of [1, 3, 10, 12, 15]) assert.equal(flags & (1 << bit), 0, `bit ${bit}`);
    assert.deepEqual([payload.readUInt32LE(20), payload.readUInt32LE(24), payload.readUInt16LE(28)], [1 << 20, 1, 256]);
    assert.equal(payload.readUInt32LE(32), 0x190);
  });

  it('INIT: asks a newer major to come again, and speaks the older minor', () => {
    const newer = Buffer.from(serve({}, OPCODE.INIT, 0n, '08000000' + '00'.repeat(60)), 'hex').subarray(16);
    assert.deepEqual([newer.readUInt32LE(0), newer.readUInt32LE(4)], [7, 45]);
    const older = Buffer.from(
      serve({}, OPCODE.INIT, 0n, '07000000' + '1f000000' + '00000200' + 'ffffff3f'),
      'hex',
    ).subarray(16);
    assert.equal(older.readUInt32LE(4), 31);
    assert.equal(older.readUInt32LE(32), 0);
  });

  it('LOOKUP: an entry to be trusted for ever, counted', () => {
    assert.equal(serve({}, OPCODE.LOOKUP, 1n, text('caf\xe9')), head(16 + 128) + ENTRY_HEX);
    assert.deepEqual(calls, [['lookup', 1, 'caf\xe9']]);
    assert.equal(session.lookups.count(ATTR.ino), 1);
  });

  it('LOOKUP of nothing: node 0, to be remembered', () => {
    const lookup = (): never => {
      throw new FsError('ENOENT');
    };
    const blank = '00'.repeat(16) + FOREVER_HEX + '00'.repeat(104);
    assert.equal(serve({ lookup }, OPCODE.LOOKUP, 1n, text('x'.repeat(255))), head(144) + blank);
  });

  it('GETATTR and SETATTR', () => {
    const attrOut = FOREVER_HEX + '0000000000000000' + ATTR_HEX;
    assert.equal(serve({}, OPCODE.GETATTR, 5n, '00'.repeat(16)), head(120) + attrOut);
    const body = Buffer.alloc(88);
    body.writeUInt32LE(1 | 2 | 4 | 8 | 16 | 256 | 2048, 0); // mode uid gid size atime mtime_now kill_suidgid
    body.writeBigUInt64LE(1n << 40n, 16);
    body.writeBigInt64LE(-5n, 32);
    body.writeUInt32LE(42, 56);
    body.writeUInt32LE(0o104755, 68);
    body.writeUInt32LE(10, 76);
    body.writeUInt32LE(20, 80);
    assert.equal(serve({}, OPCODE.SETATTR, 5n, body.toString('hex')), head(120) + attrOut);
    const changes = {
      mode: 0o4755,
      uid: 10,
      gid: 20,
      size: 2 ** 40,
      atimeSec: -5,
      atimeNsec: 42,
      mtimeNow: true,
      killSuid: true,
    };
    assert.deepEqual(changing(), [['setattr', 5, changes, CALLER]]);
  });

  it('names: MKNOD, MKDIR, SYMLINK, LINK, RENAME2', () => {
    serve({}, OPCODE.MKNOD, 1n, 'a4810000' + '01050000' + '12000000' + '00000000' + text('f'));
    assert.deepEqual(calls, [['mknod', 1, 'f', 0o100644, 0x501, { ...CALLER, umask: 0o22 }]]);
    serve({}, OPCODE.MKDIR, 1n, 'ed010000' + '12000000' + text('d'));
    assert.deepEqual(calls, [['mkdir', 1, 'd', 0o755, { ...CALLER, umask: 0o22 }]]);
    serve({}, OPCODE.SYMLINK, 1n, text('name') + text('../target'));
    assert.deepEqual(calls, [['symlink', 1, 'name', '../target', CALLER]]);
    serve({}, OPCODE.LINK, 9n, '0700000000000000' + text('second'));
    assert.deepEqual(calls, [['link', 7, 9, 'second']]);
    serve({}, OPCODE.RENAME2, 3n, '0900000000000000' + '02000000' + '00000000' + text('from') + text('to'));
    assert.deepEqual(calls, [['rename', 3, 'from', 9, 'to', 2, CALLER]]);
  });

  it('READ fills the answer itself; WRITE hands over a view of the request', () => {
    const read = (_ino: number, offset: number, into: Uint8Array): number => {
      into.set(Buffer.from('hello'));
      assert.equal(offset, 0x1_0000_0000);
      return 5;
    };
    const readIn = '00'.repeat(8) + '0000000001000000' + '00100000' + '00'.repeat(20);
    assert.equal(serve({ read }, OPCODE.READ, 5n, readIn), head(16 + 5) + Buffer.from('hello').toString('hex'));
    assert.equal(session.bytesRead, 5);
    const writeIn = '00'.repeat(8) + '0200000000000000' + '03000000' + '04000000' + '00'.repeat(16);
    const answer = serve({ write: () => 3 }, OPCODE.WRITE, 5n, writeIn + Buffer.from('abcdef').toString('hex'));
    assert.equal(answer, head(24) + '0300000000000000');
    assert.deepEqual(changing(), [['write', 5, 2, 'abc', true]]);
  });

  it('LSEEK waits for the dirty pages of a write-back cache, and needs not on a read-only mount', () => {
    const lseekIn = '00'.repeat(8) + '0010000000000000' + '03000000' + '00000000';
    const lseek = (): number => 8192;
    assert.equal(serve({ lseek }, OPCODE.LSEEK, 5n, lseekIn), 'no reply');
    assert.deepEqual(calls, []);
    assert.deepEqual(
      [...session.seeks.values()],
      [{ ino: 5, uniqueLow: 0x76543210, uniqueHigh: 0xfedcba98, offset: 4096, whence: 'data' }],
    );
    assert.equal(serve({ lseek }, OPCODE.LSEEK, 5n, lseekIn, true), head(24) + '0020000000000000');
    assert.deepEqual(calls, [['lseek', 5, 4096, 'data']]);
  });

  it('READDIR packs records of multiples of 8 and stops at the limit', () => {
    const readdir: View['readdir'] = (_ino, cookie, emit) => {
      assert.equal(cookie, 7);
      assert.equal(emit('ab', 5, 0o040755, 8), true);
      assert.equal(emit('12345678', 6, 0o120777, 9), true);
      assert.equal(emit('c', 7, 0o100644, 10), false);
    };
    const readIn = '00'.repeat(8) + '0700000000000000' + '50000000' + '00'.repeat(20);
    const first = '0500000000000000' + '0800000000000000' + '02000000' + '04000000' + '6162000000000000';
    const second = '0600000000000000' + '0900000000000000' + '08000000' + '0a000000' + '3132333435363738';
    assert.equal(serve({ readdir }, OPCODE.READDIR, 1n, readIn), head(16 + 64) + first + second);
  });

  it('READDIRPLUS says nothing about . and .. and counts the others', () => {
    const readdir: View['readdir'] = (_ino, _cookie, emit) => {
      assert.equal(emit('.', 1, 0o040755, 1), true);
      assert.equal(emit('f', ATTR.ino, 0o100644, 3), true);
    };
    const readIn = '00'.repeat(16) + '00100000' + '00'.repeat(20);
    const dot =
      '00'.repeat(128) + '0100000000000000' + '0100000000000000' + '01000000' + '04000000' + '2e00000000000000';
    const file = ENTRY_HEX + '0100000010000000' + '0300000000000000' + '01000000' + '08000000' + '6600000000000000';
    assert.equal(serve({ readdir }, OPCODE.READDIRPLUS, 1n, readIn), head(16 + 320) + dot + file);
    assert.equal(session.lookups.count(ATTR.ino), 1);
    assert.equal(session.lookups.size, 1);
  });

  it('xattrs: the length alone, too little room, the value', () => {
    const getxattr = (): Uint8Array => Buffer.from('value');
    const get = (room: string): string => serve({ getxattr }, OPCODE.GETXATTR, 5n, room + '00000000' + text('user.a'));
    assert.equal(get('00000000'), head(24) + '0500000000000000');
    assert.equal(get('04000000'), 'errno 34');
    assert.equal(get('05000000'), head(21) + Buffer.from('value').toString('hex'));
    const listxattr = (): string[] => ['user.a', 'user.b'];
    assert.equal(
      serve({ listxattr }, OPCODE.LISTXATTR, 5n, '0001000000000000'),
      head(30) + text('user.a') + text('user.b'),
    );
    serve({}, OPCODE.SETXATTR, 5n, '03000000' + '01000000' + text('user.a') + '000102');
    assert.deepEqual(calls.splice(0), [['setxattr', 5, 'user.a', '\0\x01\x02', 1, false]]);
    session.setxattrExt = true;
    const longer = '03000000' + '00000000' + '01000000' + '00000000' + text('user.a') + '000102';
    operationTable(false)[OPCODE.SETXATTR]!(session, wire(request, OPCODE.SETXATTR, 5n, longer), reply);
    assert.deepEqual(calls, [['setxattr', 5, 'user.a', '\0\x01\x02', 0, true]]);
  });

  it('FORGET gives back, and the last one tells the view', () => {
    assert.equal(serve({}, OPCODE.FORGET, 5n, '0100000000000000'), 'no reply');
    assert.deepEqual(calls, []);
    session.lookups.add(5);
    session.lookups.add(5);
    const table = operationTable(false);
    table[OPCODE.FORGET]!(session, wire(request, OPCODE.FORGET, 5n, '0100000000000000'), reply);
    assert.deepEqual(calls, []);
    const batch =
      '02000000' + '00000000' + '0500000000000000' + '0100000000000000' + '0600000000000000' + '0100000000000000';
    table[OPCODE.BATCH_FORGET]!(session, wire(request, OPCODE.BATCH_FORGET, 0n, batch), reply);
    assert.deepEqual(calls, [['forget', 5]]);
  });

  it('STATX carries the birth time and the device number in two parts', () => {
    const getattr = (): Attr => ({ ...ATTR, mode: 0o020666, rdev: (0x123 << 8) | 0x45 | (0x6 << 20) });
    const payload = Buffer.from(serve({ getattr }, OPCODE.STATX, 5n, '00'.repeat(24)), 'hex').subarray(16);
    assert.equal(payload.length, 288);
    const stat = payload.subarray(32);
    assert.equal(stat.readUInt32LE(0), 0xfff);
    assert.equal(stat.readUInt16LE(28), 0o020666);
    assert.equal(stat.readBigInt64LE(80), 1_600_000_000n);
    assert.equal(stat.readUInt32LE(88), 7);
    assert.deepEqual([stat.readUInt32LE(128), stat.readUInt32LE(132)], [0x123, 0x645]);
  });

  it('a read-only mount refuses every change with EROFS', () => {
    for (const name of [
      'MKNOD',
      'MKDIR',
      'UNLINK',
      'WRITE',
      'SETATTR',
      'SETXATTR',
      'RENAME2',
      'FALLOCATE',
      'TMPFILE',
    ] as const) {
      assert.equal(serve({}, OPCODE[name], 1n, '00'.repeat(96), true), 'errno 30', name);
      assert.deepEqual(calls, []);
    }
  });
});

describe('fs/fuse: references held by the kernel', () => {
  it('agrees with a plain map through growth, forgetting and reuse of slots', () => {
    const lookups = new Lookups();
    const model = new Map<number, number>();
    let seed = 12345;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return (seed >>> 8) % below;
    };
    for (let step = 0; step < 60_000; step++) {
      const ino = random(2) === 0 ? 1 + random(5000) : 2 ** 40 + random(5000);
      const held = model.get(ino) ?? 0;
      if (held > 0 && random(3) === 0) {
        const count = 1 + random(held);
        assert.equal(lookups.forget(ino, count), held === count);
        if (held === count) model.delete(ino);
        else model.set(ino, held - count);
      } else {
        lookups.add(ino);
        model.set(ino, held + 1);
      }
    }
    assert.equal(lookups.size, model.size);
    for (const [ino, count] of model) assert.equal(lookups.count(ino), count);
    for (const [ino, count] of model) assert.equal(lookups.forget(ino, count), true);
    assert.equal(lookups.size, 0);
  });
});
