import type { ProgressSink } from '../layers/progress.ts';
import { humanSize } from './output.ts';

interface Task {
  label: string;
  total: number | undefined;
  done: number;
  startedMs: number;
  note: string | undefined;
}

const REDRAW_MS = 100;
const BAR_WIDTH = 24;

/** Progress on a terminal's stderr: a bar a task with bytes, rate and ETA. In a pipe, or when quiet, nothing at all. */
export function terminalProgress(
  quiet: boolean,
  stream: NodeJS.WriteStream = process.stderr,
): ProgressSink & { end(): void } {
  if (quiet || !stream.isTTY) return { start: () => {}, advance: () => {}, done: () => {}, end: () => {} };
  const tasks = new Map<string, Task>();
  let linesDrawn = 0;
  let lastDraw = 0;

  const draw = (force: boolean): void => {
    const now = performance.now();
    if (!force && now - lastDraw < REDRAW_MS) return;
    lastDraw = now;
    const room = Math.max(1, (stream.rows ?? 24) - 1);
    // What is finished scrolls away; what is running stays in view.
    const all = [...tasks.values()];
    const shown =
      all.length <= room
        ? all
        : [...all.filter((t) => t.note === undefined), ...all.filter((t) => t.note !== undefined)].slice(0, room);
    const lines = shown.map((task) => line(task, now, stream.columns ?? 80));
    stream.write(`${linesDrawn > 0 ? `\x1b[${linesDrawn}A` : ''}${lines.map((l) => `\x1b[2K${l}\n`).join('')}\x1b[J`);
    linesDrawn = lines.length;
  };

  return {
    start(id, label, totalBytes) {
      tasks.set(id, { label, total: totalBytes, done: 0, startedMs: performance.now(), note: undefined });
      draw(true);
    },
    advance(id, bytes) {
      const task = tasks.get(id);
      if (task === undefined) return;
      task.done += bytes;
      draw(false);
    },
    done(id, note) {
      const task = tasks.get(id);
      if (task === undefined) return;
      task.note = note ?? 'done';
      draw(true);
    },
    end() {
      if (tasks.size > 0) draw(true);
      tasks.clear();
      linesDrawn = 0;
    },
  };
}

function line(task: Task, now: number, columns: number): string {
  const label = task.label.length > 28 ? `${task.label.slice(0, 27)}…` : task.label.padEnd(28);
  if (task.note !== undefined) return `${label} ${task.note}`.slice(0, columns - 1);
  const seconds = Math.max(0.001, (now - task.startedMs) / 1000);
  const rate = task.done / seconds;
  const amount = `${humanSize(task.done)}${task.total === undefined ? '' : `/${humanSize(task.total)}`} ${humanSize(Math.round(rate))}/s`;
  if (task.total === undefined || task.total === 0) return `${label} ${amount}`.slice(0, columns - 1);
  const part = Math.min(1, task.done / task.total);
  const bar = '█'.repeat(Math.round(part * BAR_WIDTH)).padEnd(BAR_WIDTH, '░');
  const eta = rate > 0 ? ` ETA ${clock((task.total - task.done) / rate)}` : '';
  return `${label} ${bar} ${amount}${eta}`.slice(0, columns - 1);
}

function clock(seconds: number): string {
  const whole = Math.max(0, Math.ceil(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}
