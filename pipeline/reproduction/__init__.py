"""The paper's comparisons, run on whatever checkpoints there are, beside the paper's numbers.

`run.reproduce` is the way in. It opens or extracts the stores (`methods`), fits the heads that a
table asks for (`fits`) and that can differ under the recipe (`settings`), keeps which test images
each of them gets right (`evidence`), judges the paper's claims (`claims`, and one module for each
part of Sec. 4) on them, and says what a reader has to know (`notes`); `paper` holds the paper's
numbers, `experiments` what each table and figure consists of.

Nothing is imported here, so that the command line can name the tables without torch.
"""
