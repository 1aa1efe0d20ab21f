import { PATIENCE } from '../../grid/connection.ts';

// Loaded before everything else (`--import`) by a node under test: one that takes its peer for gone after two seconds of silence instead of twenty.
PATIENCE.tickMs = 500;
