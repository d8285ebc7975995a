"""imf_lite: one-step generation with MeanFlow and improved MeanFlow. Start with losses.py."""

import warnings

# torch's own, raised inside torch by the first Jacobian-vector product of a process.
warnings.filterwarnings("ignore", message=r"`torch.jit.script` is deprecated", category=FutureWarning)
