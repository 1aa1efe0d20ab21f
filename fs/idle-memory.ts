import { readFileSync } from 'node:fs';
import koffi from 'koffi';

/**
 * What a process that has nothing to do gives back of its memory. A container's two processes spend their lives waiting, and there may be hundreds of them: what they were
 * started with (code that is compiled, garbage of the start, the pages of Node's own program that were looked at once) is of no use then. docs/decisions/0094-idle-memory.md.
 */

/** Nothing was done for so long. */
export const IDLE_MS = 5000;
/** The collector's other threads have ended what they do by then. */
const SETTLED_MS = 5000;
/** A heap that is larger is left alone: collecting it would keep the next request waiting. */
const SMALL_HEAP_BYTES = 48 << 20;

const libc = koffi.load(null);
const cMadvise = libc.func('int madvise(uintptr_t, size_t, int)');
const cMallocTrim = libc.func('int malloc_trim(size_t)');

const MADV_DONTNEED = 4;

/** What is free of the heaps. Takes some 10 ms. */
function giveHeapBack(): void {
  // A process of pg's is started with --expose-gc (server-process.ts, runtime/shim-process.ts).
  if (process.memoryUsage().heapUsed < SMALL_HEAP_BYTES)
    globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' });
  cMallocTrim(0);
}

/** The program's text: what of it is needed comes back from the page cache, 64 KiB at a time. Takes 2 ms. */
export function dropProgram(): void {
  for (const { start, end } of programText(readFileSync('/proc/self/smaps', 'latin1'), process.execPath)) {
    cMadvise(start, end - start, MADV_DONTNEED);
  }
}

/** A range of addresses. */
export interface AddressRange {
  start: number;
  end: number;
}

/**
 * The mappings of the program at `path` (proc(5), smaps) that may be dropped: private ones that cannot be written to, and of which no page is the process's own: what the dynamic linker has
 * changed would come back as it is in the file. They are there for as long as the process is.
 */
export function programText(smaps: string, path: string): AddressRange[] {
  const ranges: AddressRange[] = [];
  let range: AddressRange | undefined;
  for (const line of smaps.split('\n')) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) r-([x-])p \S+ \S+ \d+ +(.*)$/.exec(line);
    if (head !== null)
      range = head[4] === path ? { start: parseInt(head[1]!, 16), end: parseInt(head[2]!, 16) } : undefined;
    else if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) range = undefined;
    else if (/^(Anonymous|Private_Dirty|Shared_Dirty|Swap|Locked): +[1-9]/.test(line)) range = undefined;
    else if (line.startsWith('VmFlags:') && range !== undefined) {
      ranges.push(range);
      range = undefined;
    }
  }
  return ranges;
}

/** Tells when a process has been idle for long enough, and has it give memory back then: once, until it is busy again. */
export class IdleMemory {
  private seen = -1;
  private since = 0;
  private steps = 0;
  private timer: NodeJS.Timeout | undefined;

  /** For a process with an event loop: it has just done something. */
  busy(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      giveHeapBack();
      this.timer = setTimeout(dropProgram, SETTLED_MS).unref();
    }, IDLE_MS).unref();
  }

  /** For a thread without one, which is about to sleep: how long it may, in milliseconds; -1: for ever. `done` is a count of what it has done so far. */
  patienceMs(done: number): number {
    const now = performance.now();
    if (done !== this.seen) {
      this.seen = done;
      this.since = now;
      this.steps = 0;
    }
    if (this.steps === 0 && now - this.since >= IDLE_MS) {
      giveHeapBack();
      this.steps = 1;
    } else if (this.steps === 1 && now - this.since >= IDLE_MS + SETTLED_MS) {
      dropProgram();
      this.steps = 2;
    }
    if (this.steps === 2) return -1;
    return Math.max(1, Math.ceil(this.since + IDLE_MS + this.steps * SETTLED_MS - now));
  }
}
