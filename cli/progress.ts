import { visible } from '../mdm/visible.ts';
import { Flags } from '@oclif/core';
import type { ProgressSink } from '../layers/progress.ts';
import { humanSize } from './output.ts';

/** Flags of the commands that take long. */
export const progressFlags = {
  quiet: Flags.boolean({ char: 'q', description: 'no progress, no words: only the id' }),
  progress: Flags.string({
    description: "'auto': bars on a terminal; 'json': one event a line on stderr; 'none'",
    options: ['auto', 'json', 'none'],
    default: 'auto',
  }),
};

/** Progress as a command shows it. */
export interface ShownProgress extends ProgressSink {
  /** Whether events are written as JSON: then nothing else goes to stderr. */
  readonly isJson: boolean;
  /** What all came to: the last event, where events are written. */
  result(fields: object): void;
  /** That it came to nothing. */
  error(error: { code?: string; message: string; hint?: string }): void;
  /** Leaves the bars where they are. */
  end(): void;
}

interface Task {
  label: string;
  total: number | undefined;
  done: number;
  startedMs: number;
  /** Undefined while it runs. */
  note: string | undefined;
}

const REDRAW_MS = 100;
const BAR_WIDTH = 24;
const LABEL_WIDTH = 28;

/** What is under way, and how much of the whole it is. */
class Tasks {
  readonly all = new Map<string, Task>();
  readonly startedMs = performance.now();
  whole: number | undefined;
  /** Bytes of tasks that counted towards the whole. */
  done = 0;
  /** The part of them that was not passed over: what a rate is made from. */
  moved = 0;

  start(id: string, label: string, total: number | undefined): void {
    this.all.set(id, { label: visible(label), total, done: 0, startedMs: performance.now(), note: undefined });
  }

  advance(id: string, bytes: number): Task | undefined {
    const task = this.all.get(id);
    if (task === undefined) return undefined;
    task.done += bytes;
    this.done += bytes;
    this.moved += bytes;
    return task;
  }

  finish(id: string, note: string | undefined): Task | undefined {
    const task = this.all.get(id);
    if (task === undefined) return undefined;
    task.note = note ?? 'done';
    this.done += Math.max(0, (task.total ?? task.done) - task.done);
    return task;
  }
}

/**
 * How a command tells of its progress: bars on a terminal's stderr (one a task, one for all, with bytes, rate and ETA), JSON events
 * (docs/formats/progress.md), or not at all - in a pipe, and when it is to be quiet.
 */
export function shownProgress(
  flags: { quiet?: boolean | undefined; progress?: string | undefined },
  stream: NodeJS.WriteStream = process.stderr,
): ShownProgress {
  if (flags.progress === 'json') return jsonProgress((event) => void stream.write(`${JSON.stringify(event)}\n`));
  if (flags.quiet === true || flags.progress === 'none' || !stream.isTTY) return noProgress();
  return bars(stream);
}

/** As shownProgress without events: bars on a terminal, else nothing. */
export function terminalProgress(quiet: boolean, stream: NodeJS.WriteStream = process.stderr): ShownProgress {
  return shownProgress({ quiet }, stream);
}

function noProgress(): ShownProgress {
  const nothing = (): void => {};
  return {
    isJson: false,
    start: nothing,
    advance: nothing,
    done: nothing,
    result: nothing,
    error: nothing,
    end: nothing,
  };
}

/** Events as docs/formats/progress.md has them, at most ten a second of one task. */
function jsonProgress(write: (event: object) => void): ShownProgress {
  const tasks = new Tasks();
  const last = new Map<string, number>();
  const total = (): object => (tasks.whole === undefined ? {} : { totalDone: tasks.done, totalBytes: tasks.whole });
  return {
    isJson: true,
    total(bytes) {
      tasks.whole = (tasks.whole ?? 0) + bytes;
      write({ event: 'total', totalBytes: tasks.whole });
    },
    start(id, label, bytes) {
      tasks.start(id, label, bytes);
      write({ event: 'start', id, label, ...(bytes === undefined ? {} : { bytes }) });
    },
    advance(id, bytes) {
      const task = tasks.advance(id, bytes);
      const now = performance.now();
      if (task === undefined || now - (last.get(id) ?? 0) < REDRAW_MS) return;
      last.set(id, now);
      const rate = Math.round((tasks.moved / Math.max(1, now - tasks.startedMs)) * 1000);
      write({
        event: 'progress',
        id,
        done: task.done,
        ...(task.total === undefined ? {} : { bytes: task.total }),
        ...total(),
        rate,
      });
    },
    done(id, note) {
      const task = tasks.finish(id, note);
      if (task !== undefined)
        write({ event: 'done', id, done: task.done, ...(note === undefined ? {} : { note }), ...total() });
    },
    result: (fields) => write({ event: 'result', ...fields }),
    error: ({ code, message, hint }) =>
      write({
        event: 'error',
        ...(code === undefined ? {} : { code }),
        message,
        ...(hint === undefined ? {} : { hint }),
      }),
    end: () => {},
  };
}

function bars(stream: NodeJS.WriteStream): ShownProgress {
  const tasks = new Tasks();
  let linesDrawn = 0;
  let lastDraw = 0;
  const draw = (force: boolean): void => {
    const now = performance.now();
    if (!force && now - lastDraw < REDRAW_MS) return;
    lastDraw = now;
    const columns = stream.columns ?? 80;
    const last = tasks.whole === undefined || tasks.all.size < 2 ? [] : [totalLine(tasks, now, columns)];
    const room = Math.max(1, (stream.rows ?? 24) - 1 - last.length);
    // What is finished scrolls away; what is running stays in view.
    const all = [...tasks.all.values()];
    const shown =
      all.length <= room
        ? all
        : [...all.filter((t) => t.note === undefined), ...all.filter((t) => t.note !== undefined)].slice(0, room);
    const lines = [...shown.map((task) => line(task, now, columns)), ...last];
    stream.write(`${linesDrawn > 0 ? `\x1b[${linesDrawn}A` : ''}${lines.map((l) => `\x1b[2K${l}\n`).join('')}\x1b[J`);
    linesDrawn = lines.length;
  };
  return {
    isJson: false,
    total: (bytes) => void (tasks.whole = (tasks.whole ?? 0) + bytes),
    start(id, label, totalBytes) {
      tasks.start(id, label, totalBytes);
      draw(true);
    },
    advance: (id, bytes) => void (tasks.advance(id, bytes) && draw(false)),
    done: (id, note) => void (tasks.finish(id, note) && draw(true)),
    result: () => {},
    error: () => {},
    end() {
      if (tasks.all.size > 0) draw(true);
      tasks.all.clear();
      linesDrawn = 0;
    },
  };
}

function line(task: Task, now: number, columns: number): string {
  const label =
    task.label.length > LABEL_WIDTH ? `${task.label.slice(0, LABEL_WIDTH - 1)}…` : task.label.padEnd(LABEL_WIDTH);
  if (task.note !== undefined) return `${label} ${task.note}`.slice(0, columns - 1);
  return bar(label, task.done, task.total, task.done / seconds(task.startedMs, now), columns);
}

function totalLine(tasks: Tasks, now: number, columns: number): string {
  const rate = tasks.moved / seconds(tasks.startedMs, now);
  return bar('total'.padEnd(LABEL_WIDTH), tasks.done, tasks.whole, rate, columns);
}

const seconds = (sinceMs: number, now: number): number => Math.max(0.001, (now - sinceMs) / 1000);

function bar(label: string, done: number, total: number | undefined, rate: number, columns: number): string {
  const amount = `${humanSize(done)}${total === undefined ? '' : `/${humanSize(total)}`} ${humanSize(Math.round(rate))}/s`;
  if (total === undefined || total === 0) return `${label} ${amount}`.slice(0, columns - 1);
  const part = Math.min(1, done / total);
  const drawn = '█'.repeat(Math.round(part * BAR_WIDTH)).padEnd(BAR_WIDTH, '░');
  const eta = rate > 0 ? ` ETA ${clock((total - done) / rate)}` : '';
  return `${label} ${drawn} ${amount}${eta}`.slice(0, columns - 1);
}

function clock(seconds: number): string {
  const whole = Math.max(0, Math.ceil(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}
