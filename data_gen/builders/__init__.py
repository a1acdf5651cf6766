"""The data sets that can be made, one builder each; a data set of your own is one more file and a place in DATASETS."""

from data_gen.builders.dsprites import DSprites
from data_gen.builders.fashion_mnist import FashionMnist
from data_gen.builders.mnist import Mnist
from data_gen.builders.released import TetrominoesReleased
from data_gen.builders.shapes3d import Shapes3d
from data_gen.builders.smallnorb import SmallNorb
from data_gen.builders.tetrominoes import Tetrominoes
from data_gen.dataset import Dataset

DATASETS: dict[str, type[Dataset]] = {builder.name: builder for builder in (
    Tetrominoes, TetrominoesReleased, Mnist, FashionMnist, SmallNorb, Shapes3d, DSprites)}
