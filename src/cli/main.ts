#!/usr/bin/env node
// The entry of the command line.
import { Command } from 'commander';

await new Command('penstock').parseAsync();
