import assert from 'node:assert/strict';
import fc from 'fast-check';
import { NameList } from '../../../fs/view/name-list.ts';

/** One name in its place: the slow twin is an array of them. */
interface Place {
  name: string;
  ino: number;
  seq: number;
}

const all = (list: NameList, after?: number): Place[] => Array.from(list.entries(after), (place) => ({ ...place }));

const step = fc.record({
  kind: fc.constantFrom('add', 'add', 'add', 'set', 'delete', 'rename', 'freeze', 'many', 'thin'),
  name: fc.nat(40).map((n) => `name ${n}`),
  other: fc.nat(40).map((n) => `name ${n}`),
  ino: fc.nat(),
});

describe('a list of names', () => {
  it('is what an array of them would be, and so is each copy of it as it was then', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120, size: 'max' }), (steps) => {
        const list = new NameList();
        let twin: Place[] = [];
        const frozen: [NameList, Place[]][] = [];
        let next = 0;
        const add = (name: string, ino: number): void => {
          twin.push({ name, ino, seq: next++ });
          list.set(name, ino);
        };
        const remove = (name: string): void => {
          const isThere = twin.some((place) => place.name === name);
          twin = twin.filter((place) => place.name !== name);
          assert.equal(list.delete(name), isThere);
        };
        for (const { kind, name, other, ino } of steps) {
          const at = twin.findIndex((place) => place.name === name);
          if (kind === 'freeze') frozen.push([list.frozen(), twin.slice()]);
          else if (kind === 'many') for (let i = 0; i < 700; i++) add(`${next} many`, i);
          else if (kind === 'thin') for (const place of twin.filter(({ seq }) => seq % 5 !== 0)) remove(place.name);
          else if (kind === 'delete') remove(name);
          else if (at < 0 && kind !== 'rename') add(name, ino);
          else if (at >= 0 && kind === 'set') {
            twin[at] = { ...twin[at]!, ino };
            list.set(name, ino);
          } else if (at >= 0 && kind === 'rename' && !list.has(other)) {
            twin[at] = { ...twin[at]!, name: other };
            list.rename(name, other);
          }
        }
        assert.equal(list.size, twin.length);
        for (const { name, ino } of twin) assert.equal(list.get(name), ino);
        assert.equal(list.get('never there'), undefined);
        for (const after of [-1, 0, Math.floor(next / 2), next])
          assert.deepEqual(
            all(list, after),
            twin.filter(({ seq }) => seq > after),
          );
        for (const [copy, then] of frozen) assert.deepEqual([copy.size, all(copy)], [then.length, then]);
      }),
      { numRuns: 12 },
    );
  });
});
