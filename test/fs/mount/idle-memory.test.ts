import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dropProgram, programText } from '../../../fs/idle-memory.ts';

/** A mapping as smaps has it, with as much of it as is looked at. */
const mapping = (head: string, anonymousKib = 0, more = ''): string =>
  `${head}\nSize: 8 kB\nRss: 8 kB\nAnonymous: ${String(anonymousKib).padStart(8)} kB\n${more}VmFlags: rd mr mw me\n`;

describe('fs: memory of an idle process', () => {
  it('only what the program file can bring back is dropped', () => {
    const smaps = [
      mapping('00400000-00402000 r--p 00000000 fe:00 17                         /bin/node'),
      mapping('00402000-00404000 r-xp 00002000 fe:00 17                         /bin/node'),
      // Relocated by the dynamic linker, then protected.
      mapping('00404000-00406000 r--p 00004000 fe:00 17                         /bin/node', 4),
      mapping('00406000-00408000 rw-p 00006000 fe:00 17                         /bin/node'),
      mapping('00408000-0040a000 r-xs 00008000 fe:00 17                         /bin/node'),
      mapping(
        '0040a000-0040c000 r-xp 0000a000 fe:00 17                         /bin/node',
        0,
        'Private_Dirty:  4 kB\n',
      ),
      mapping(
        '0040c000-0040e000 r-xp 0000c000 fe:00 17                         /bin/node',
        0,
        'Swap:           4 kB\n',
      ),
      mapping('00410000-00412000 r-xp 00000000 fe:00 18                         /bin/node (deleted)'),
      mapping('00420000-00422000 r-xp 00000000 fe:00 19                         /lib/libc.so.6'),
      mapping('00430000-00432000 r-xp 00000000 00:00 0 '),
      mapping('ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0          [vsyscall]'),
    ].join('');
    assert.deepEqual(programText(smaps, '/bin/node'), [
      { start: 0x400000, end: 0x402000 },
      { start: 0x402000, end: 0x404000 },
    ]);
  });

  it('a process whose program was dropped goes on, with less of it resident', () => {
    const ranges = programText(readFileSync('/proc/self/smaps', 'latin1'), process.execPath);
    assert.ok(ranges.length > 0, 'Node has text');
    const residentKib = (): number => {
      const text = readFileSync('/proc/self/smaps', 'latin1');
      return ranges.reduce((sum, { start }) => {
        const at = text.search(new RegExp(`^0*${start.toString(16)}-`, 'm'));
        return sum + Number(/^Rss: +(\d+)/m.exec(text.slice(at))![1]);
      }, 0);
    };
    // All of it that lies in the page cache is looked at first.
    const before = residentKib();
    dropProgram();
    const after = residentKib();
    assert.ok(after < before, `${after} of ${before} KiB are resident`);
  });
});
