// Every case of test/native/*_test.cc under the thread sanitizer: in a file of its own, so that both halves run side by side.
import { THREAD } from '../support/native-build.js';
import { declareNativeTests } from '../support/native-suite.js';

await declareNativeTests(THREAD);
